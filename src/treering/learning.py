"""The operations that learn: tokens, a model of them, what it is worth and what it says. Above ``operations.py``."""

from collections.abc import Collection
from pathlib import Path

from treering.errors import ModelError, UsageError
from treering.lm.base import check_base
from treering.lm.generate import generate as sample
from treering.operations import Place, finder, scrape
from treering.pipeline import answer as answer_stage
from treering.pipeline import evaluate as evaluate_stage
from treering.pipeline import learn as learn_stage
from treering.pipeline import tokenize as tokenize_stage
from treering.pipeline.tasks import TASKS as TASKS
from treering.report import Reporter
from treering.types import Corpus


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


def generate(where: Place, prompt: str, report: Reporter, *, max_tokens: int, temperature: float, seed: int) -> str:
    """Let the current model go on from a prompt."""
    folder = _model(where)
    report.detail(f"model: {folder}")
    return sample(folder, prompt, max_tokens=max_tokens, temperature=temperature, seed=seed)


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
        return answer_stage.message(opened, change, _model_or_none(where), begin)


def suggest(where: Place, report: Reporter, *, limit: int) -> answer_stage.Suggestions:
    """What is likely to come next, with what speaks for it."""
    with finder(where, report, vectors=False) as opened:
        return answer_stage.suggest(opened, where.source, where.settings, _model_or_none(where), limit)


def _model_or_none(where: Place) -> Path | None:
    with where.store(existing=True) as store:
        return learn_stage.current_model(store)


def _model(where: Place) -> Path:
    folder = _model_or_none(where)
    if folder is None:
        raise ModelError("this repository has no trained model yet", "run `treering run`, or `treering train`, first")
    return folder
