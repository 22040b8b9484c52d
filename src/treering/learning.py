"""The operations that learn: tokens, a model of them, what it is worth and what it says. Above ``finding.py``."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from treering.errors import UsageError
from treering.finding import Desk
from treering.lm import processes
from treering.lm.base import check_base
from treering.lm.export import FORMATS, Exported, told_of
from treering.lm.export import export_model as write_export
from treering.lm.generate import Writer
from treering.lm.generate import generate as sample
from treering.lm.hardware import Machine, machine
from treering.lm.plan import Plan, plan
from treering.lm.shape import Shape, shape_of
from treering.opening import Place, finder
from treering.operations import keep_log, scrape
from treering.pipeline import answer as answer_stage
from treering.pipeline import evaluate as evaluate_stage
from treering.pipeline import learn as learn_stage
from treering.pipeline import models as model_stage
from treering.pipeline import tokenize as tokenize_stage
from treering.pipeline.answer import Suggestions as Suggestions
from treering.pipeline.tasks import TASKS as TASKS
from treering.report import Reporter
from treering.text.strategies import message_prompt
from treering.types import Corpus, Generated, Sampling

MODEL_FORMATS = FORMATS
"""What a model can be exported as."""


def tokenize(where: Place, report: Reporter) -> tuple[Path, Corpus]:
    """Bring the store up to date and its history into a token stream for the base model."""
    scrape(where, report, patches=True)  # by their patches repeated commits are known
    with where.store() as store:
        return tokenize_stage.tokenize(store, where.source, where.settings, report)


def train(
    where: Place,
    report: Reporter,
    *,
    resume: bool = True,
    onward: bool = False,
    may_go_on: learn_stage.GoesOn = lambda: True,
) -> learn_stage.Learned | None:
    """Fine-tune the base model on the history, within the budget, and judge it on later commits; with ``onward``, the
    current model on what came since. What was interrupted goes on, with ``resume``. ``may_go_on`` is asked after each
    step.

    None in a process that ``torchrun`` started beside the first one, which tells for all.
    """
    if where.settings.train.minutes == 0:
        raise UsageError("a budget of 0 minutes trains nothing", "give --minutes a positive number")
    parent = _model(where) if onward else None
    if parent:
        where = as_told(where, parent)
    check_base(where.settings.train.model)
    folder = Path(processes.shared("tokens", lambda: str(tokenize(where, report)[0])))
    with where.store() as store:
        if processes.rank():
            learn_stage.follow(store, folder, where.settings, resume=resume, parent=parent)
            return None
        learned = learn_stage.train(
            store, folder, where.settings, report, resume=resume, parent=parent, may_go_on=may_go_on
        )
        keep_log(store, where.settings, report)
    if not learned.new:
        report.say("nothing new to learn: this history was learned with these settings before")
    return learned


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
    folder = _model(where, model or "")
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
    folder = _model(where, model or "")
    report.detail(f"model: {folder}")
    return write_export(folder, output, as_format, quantize)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a training would need, before anything starts: the machine, the base model's shape and the plan."""

    machine: Machine
    base: str
    shape: Shape
    sequence_length: int
    plan: Plan


def profile(where: Place) -> Machine:
    """The machine as a training may use it; all its GPUs train together."""
    found = machine(gpu=where.settings.train.gpu)
    return replace(found, devices=max(found.devices, found.visible))


def prospect(where: Place, report: Reporter) -> Prospect:
    """Plan the training that the settings ask for. Reads the base model's config, not its weights, and no history."""
    chosen = where.settings.train
    report.detail(f"reading the shape of {chosen.model}")
    length = where.settings.tokens.sequence_length
    shape = shape_of(chosen.model)
    found = profile(where)
    planned = plan(found, shape, method=chosen.method, sequences=chosen.batch_size, sequence_length=length)
    return Prospect(found, chosen.model, shape, length, planned)


def evaluate(where: Place, report: Reporter, *, asked: Collection[str], most: int) -> evaluate_stage.Evaluation:
    """Measure the current model on later commits, and in tasks, beside what needs none; kept beside the model."""
    unknown = [name for name in asked if name not in TASKS]
    if unknown:
        raise UsageError(f"there is no task {unknown[0]}", f"tasks: {', '.join(TASKS)}")
    folder = _model(where)
    with finder(where, report) as opened:
        return evaluate_stage.evaluate(folder, opened, where.source, where.settings, report, asked=asked, most=most)


def message(where: Place, report: Reporter, *, begin: str = "") -> answer_stage.Message:
    """A message for what is staged, by the model if it was shown to be better at it, else by the history alone."""
    change = answer_stage.staged_change(where.source, where.settings)
    with finder(where, report) as opened:
        return answer_stage.message(opened, change, current_model(where), begin)


def suggest(opened: Desk, *, limit: int = 10) -> answer_stage.Suggestions:
    """What is likely to come next: what the last commits are about, what they left open, and the files that come next,
    each with what speaks for it.
    """
    where = opened.where
    return answer_stage.suggest(opened.finder, where.source, where.settings, current_model(where), limit)


def writer(where: Place, name: str = "") -> Writer:
    """A model of the store, loaded to go on from many prompts, one after the other: the current one, or that of a name.
    No folder is taken for a name: whoever asks may be far away.

    Raises :class:`ModelError` if there is none.
    """
    with where.store(existing=True) as store:
        folder = model_stage.named(store, name)
    return Writer(folder, gpu=where.settings.train.gpu)


def model_name(where: Place) -> str:
    """The name of the current model; empty where there is none."""
    folder = current_model(where)
    return folder.name if folder else ""


def models(where: Place) -> list[model_stage.Model]:
    """The models of the store, the newest first."""
    with where.store(existing=True) as store:
        return model_stage.listed(store)


def use_model(where: Place, name: str) -> Path:
    """Make another model the current one."""
    with where.store(existing=True) as store:
        folder = model_stage.named(store, name)
        learn_stage.make_current(store, folder)
        return folder


def remove_model(where: Place, name: str) -> Path:
    """Remove a model that is not the current one."""
    with where.store(existing=True) as store:
        return model_stage.remove(store, name)


def compare_models(where: Place, first: str, second: str, report: Reporter) -> model_stage.Comparison:
    """Put two models side by side on commits that neither learned from."""
    scrape(where, report)
    with where.store(existing=True) as store:
        folders = model_stage.named(store, first), model_stage.named(store, second)
        return model_stage.compare(store, where.source, where.settings, *folders, report)


def as_told(where: Place, model: Path) -> Place:
    """The place with a model as the base, and the settings by which it was told the history."""
    told, settings = learn_stage.report_of(model), where.settings
    tokens = replace(
        settings.tokens,
        strategy=told.strategy,  # type: ignore[arg-type]  # a name that was one when it was written
        sequence_length=told.recipe.sequence_length,
    )
    return replace(where, settings=replace(settings, train=replace(settings.train, model=str(model)), tokens=tokens))


def current_model(where: Place) -> Path | None:
    """The folder of the model that answers, if there is one."""
    with where.store(existing=True) as store:
        return learn_stage.current_model(store)


def _model(where: Place, name: str = "") -> Path:
    """The current model, or that of a folder or a name."""
    if name and (folder := Path(name).expanduser()).is_dir():
        return folder
    with where.store(existing=True) as store:
        return model_stage.named(store, name)
