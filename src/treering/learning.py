"""The operations that learn: tokens, a model of them, what it is worth and what it says. Above ``operations.py``."""

from collections.abc import Callable, Iterator
from pathlib import Path

from treering.errors import ModelError, UsageError
from treering.lm.base import check_base
from treering.lm.export import FORMATS, REPORT, Exported, told_of
from treering.lm.export import export_model as write_export
from treering.lm.generate import generate as sample
from treering.operations import Place, scrape
from treering.pipeline import learn as learn_stage
from treering.pipeline import tokenize as tokenize_stage
from treering.report import Reporter
from treering.text.strategies import message_prompt
from treering.types import Corpus, Generated, Sampling

MODEL_FORMATS = FORMATS
"""What a model can be exported as."""


def tokenize(where: Place, report: Reporter) -> tuple[Path, Corpus]:
    """Bring the store up to date and its history into a token stream for the base model."""
    scrape(where, report)
    with where.store() as store:
        return tokenize_stage.tokenize(store, where.source, where.settings, report)


def train(where: Place, report: Reporter) -> tuple[Path, learn_stage.TrainingReport]:
    """Fine-tune the base model on the history, within the budget of minutes, and judge it on later commits."""
    if where.settings.train.minutes == 0:
        raise UsageError("a budget of 0 minutes trains nothing", "give --minutes a positive number")
    check_base(where.settings.train.model)
    folder, _ = tokenize(where, report)
    with where.store() as store:
        model, told, new = learn_stage.train(store, folder, where.settings, report)
    if not new:
        report.say("nothing new to learn: this history was learned with these settings before")
    return model, told


def generate(
    where: Place,
    prompt: str,
    sampling: Sampling,
    report: Reporter,
    *,
    message: str | None = None,
    count: int = 1,
    model: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Generated]:
    """Let a model go on from a prompt, or from the beginning of a commit's ``message``, told as it was in training.
    ``tell`` gets the prompt and every piece after it as it is made.
    """
    folder = _model(where, model)
    if message is not None:
        if prompt:
            raise UsageError("a prompt and a message are two beginnings", "give one of them")
        strategy = told_of(folder).strategy
        if not strategy:
            raise UsageError(f"the model in {folder} does not say how it was told commits", "give it a prompt")
        prompt = message_prompt(strategy, message)
    report.detail(f"model: {folder}")
    return sample(folder, prompt, sampling, count=count, gpu=where.settings.train.gpu, tell=tell)


def export_model(
    where: Place,
    output: Path,
    report: Reporter,
    *,
    as_format: str,
    quantize: str | None = None,
    model: str | None = None,
) -> Exported:
    """Write a model to a folder for other programs."""
    folder = _model(where, model)
    report.detail(f"model: {folder}")
    return write_export(folder, output, as_format, quantize)


def _model(where: Place, name: str | None) -> Path:
    """The current model, or the one of a folder or a fingerprint, which may be its beginning."""
    if name and (folder := Path(name).expanduser()).is_dir():
        return folder
    with where.store(existing=True) as store:
        if name is None:
            current = learn_stage.current_model(store)
            if current is None:
                raise ModelError(
                    "this repository has no trained model yet", "run `treering run`, or `treering train`, first"
                )
            return current
        kept = [report.parent for report in sorted((store.folder / "models").glob(f"*/[!.]*/{REPORT}"))]
    found = [folder for folder in kept if folder.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(folder.name for folder in kept) or "none"
    raise UsageError(
        f"`{name}` is {'no' if not found else 'not one'} model", f"name a folder, or one that is kept: {names}"
    )
