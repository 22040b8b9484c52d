"""index, model and its evaluation → answers to a user: a message for what is staged, and what may come next.

A model has a say only in the tasks that it won on the repository's own later commits; whoever answers is named.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from treering.config import Settings
from treering.errors import UsageError
from treering.git.blame import tree
from treering.git.reader import Source, read_refs
from treering.git.shadow import GitFailed, shadow_of
from treering.git.staged import staged
from treering.lm.base import load_model
from treering.lm.scorer import Scorer
from treering.pipeline.common import Cleaner, Kinds, caps_of
from treering.pipeline.evaluate import WINDOW, Evaluation, evaluation_of
from treering.pipeline.propose import USUAL, Change, Mixture, Proposer, change_of
from treering.search.commits import Finder
from treering.search.files import touches_of
from treering.search.themes import Theme, telling, themes
from treering.search.upcoming import Partner, fading, partners
from treering.text.document import features
from treering.tokens.tokenizer import load_tokenizer
from treering.types import Commit, Placed, record_of

THEMES = 6
RECENT = 30
"""How many of the last commits themes are looked for in, beside those before."""


@dataclass(frozen=True, slots=True)
class Near:
    """A commit that did nearly the same."""

    commit_hash: str
    subject: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a change, who wrote it (``model`` or ``history``) and why; the likeliest ``next`` words where a
    beginning was given.
    """

    message: str
    answered_by: str
    why: str
    next: list[str]
    files: tuple[str, ...]
    near: list[Near]


def staged_change(source: Source, settings: Settings) -> Change:
    """What is staged, without its secrets. Raises :class:`UsageError` where nothing is."""
    diff = staged(source, caps_of(settings), seconds=settings.scrape.commit_seconds)
    commit = Commit(
        hash="", parents=(), author_name="", author_email="", author_time=0, author_offset=0, committer_name="",
        committer_email="", committer_time=0, committer_offset=0, subject="", body="", changes=diff.changes,
        patches=diff.patches,
    )  # fmt: skip
    return change_of(features(record_of(Cleaner(settings)(commit), Placed("", "", ()), ""), Kinds(None)))


def message(finder: Finder, change: Change, model: Path | None, begin: str) -> Message:
    """The message of a change, or one that begins so, finished."""
    if "\n" in begin:
        raise UsageError("the beginning has more than one line", "give the beginning of the subject")
    # Undecodable bytes of an argument are surrogates, which no tokenizer takes.
    begin = begin.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    task = "completion" if begin.strip() else "message"
    known = evaluation_of(model) if model else None
    with opened(finder, model, known, task) as proposer:
        whole = len(proposer.history)
        proposer.read_to(whole)
        near = proposer.nearest(change, proposer.history.everything)
        likeliest: list[str] = []
        if begin.strip():
            told = known.mixture if known and known.mixture else USUAL
            how = told if proposer.scorer else Mixture(told.without, {})
            said, likeliest = proposer.completed(change, near, begin, how)
        elif proposer.scorer:
            said = proposer.written([proposer.prompt(change, near)])[0]
        else:
            said = proposer.adapted(change, near)
        return Message(
            message=said,
            answered_by="model" if proposer.scorer else "history",
            why=why(known, task, model),
            next=likeliest,
            files=change.paths,
            near=[Near(proposer.history.hashes[number], proposer.subject(number)) for number in near],
        )


@dataclass(frozen=True, slots=True)
class NextFile:
    """A file that the next commit may touch; ``last`` is the newest commit that did."""

    path: str
    last: str


@dataclass(frozen=True, slots=True)
class Proposals:
    """What the last commits left open, and the files that come next, by whoever ranked them and why."""

    open: list[Partner]
    files: list[NextFile]
    answered_by: str
    why: str


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What may come next: what the last commits are about, and the rest as in :class:`Proposals`."""

    themes: list[Theme]
    open: list[Partner]
    files: list[NextFile]
    answered_by: str
    why: str


def proposals(finder: Finder, source: Source, settings: Settings, model: Path | None, limit: int) -> Proposals:
    """What may come next in the newest indexed commit of the first ref."""
    history = finder.history
    tip = history.tip(read_refs(source, settings.scrape))
    mask = history.at(tip) & finder.open
    touches = touches_of(history)
    there = files_at(source, tip)
    if there is None:  # what was touched must do
        there = [touches.names[file] for file in sorted(set(touches.files[mask[touches.commits]].tolist()))]
    fresh = fading(history, touches, mask)
    scores = {name: float(fresh[touches.number[name]]) for name in there if name in touches.number}
    scores = {name: score for name, score in scores.items() if score > 0}
    known = evaluation_of(model) if model else None
    with opened(finder, model, known, "next") as proposer:
        weight = known.opinions.get("next", 0.0) if known and proposer.scorer else 0.0
        ranked = proposer.opinion(proposer.of_last(mask), scores).ranked(weight)
        newest = {
            int(file): int(commit) for commit, file in zip(touches.commits, touches.files, strict=True) if mask[commit]
        }
        return Proposals(
            open=partners(history, touches, mask, there, limit),
            files=[NextFile(path, history.hashes[newest[touches.number[path]]]) for path in ranked[:limit]],
            answered_by="model" if proposer.scorer else "history",
            why=why(known, "next", model),
        )


def suggest(finder: Finder, source: Source, settings: Settings, model: Path | None, limit: int) -> Suggestions:
    """The same, with what the last commits there are about."""
    history = finder.history
    told = telling(history, history.at(history.tip(read_refs(source, settings.scrape))) & finder.open)
    about = themes(history, finder.dense, told[-RECENT:], told[:-RECENT], THEMES)
    come = proposals(finder, source, settings, model, limit)
    return Suggestions(about, come.open, come.files, come.answered_by, come.why)


def files_at(source: Source, commit: str) -> list[str] | None:
    """The files of a commit; None where its trees are missing."""
    with shadow_of(source) as shadow:
        try:
            return tree(shadow, commit)
        except GitFailed:
            return None


@contextmanager
def opened(finder: Finder, model: Path | None, known: Evaluation | None, task: str) -> Iterator[Proposer]:
    """What proposes in a task, with the model if it won it."""
    if model is None or known is None or not known.won(task):
        yield Proposer(finder)
        return
    yield Proposer(finder, Scorer(load_model(model), load_tokenizer(str(model)), WINDOW))


def why(known: Evaluation | None, task: str, model: Path | None) -> str:
    """Why who answers does."""
    if model is None:
        return "there is no model of this repository (`treering train` makes one)"
    row = next((row for row in known.tasks if row.task == task), None) if known else None
    if row is None:
        return "the model was not evaluated in this (`treering evaluate` does)"
    low, high = row.difference[1:]
    figures = f"{row.measure} {row.ways[row.model]:.3f}, {row.baseline} {row.ways[row.baseline]:.3f}"
    said = "the model was better" if row.won else "the model was not shown to be better"
    return f"{said} on {row.cases} later commits ({figures}, difference [{low:+.3f}, {high:+.3f}])"
