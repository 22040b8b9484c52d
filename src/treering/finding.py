"""The operations that find: commits by words, by likeness, by a line of a file; the files that a task will touch."""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace

from treering.errors import DataError, UsageError
from treering.files import as_text
from treering.git.blame import blamed, line_history, texts, tree
from treering.git.moved import Mark, RefFiles
from treering.git.reader import read_refs
from treering.git.shadow import GitFailed, Shadow, shadow_of
from treering.opening import Place, finder
from treering.operate import threads
from treering.operate.forge import Thread
from treering.operate.forge import told as told
from treering.pipeline.scrape import tips_of
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.files import Fits, Predictor
from treering.store import Store
from treering.text.paths import matching
from treering.types import NO_FILTERS, FilePatch, FilePrediction, Filters, Hit, Record
from treering.vectors.embedder import Embedder, embed

T = TypeVar("T")

_HASH = re.compile(r"[0-9a-fA-F]{4,64}")
_LINE = re.compile(r"(.+):0*([1-9][0-9]{0,8})", re.DOTALL)

LONGEST_QUERY = 20_000
"""Characters of a query that are read; what comes after is a file, not a question."""


class CommitDetail(msgspec.Struct, frozen=True):
    """A commit with its hunks, as far as they are indexed: capped, without secrets and what is no text; and with the
    request that brought it in and the issues it names, as far as they were fetched from the forge.
    """

    commit: Record
    hunks: tuple[FilePatch, ...]
    threads: tuple[Thread, ...] = ()


class Point(msgspec.Struct, frozen=True):
    """A commit in the four words of the seed's own search."""

    id: str
    author: str
    message: str
    files: tuple[str, ...]


class Desk:
    """A repository's index, open for many questions, with what they need beside it. One thread uses it at a time.

    What only some questions need is opened by the first that does.
    """

    def __init__(self, where: Place, finder: Finder, stack: ExitStack) -> None:
        self.where, self.finder = where, finder
        self._stack = stack
        self._whole: Desk | None = None
        self._refs = RefFiles(where.source)
        self._seen: tuple[Mark, ...] = ()
        self._tips = ""
        self.fits: Fits = {}
        """Weights that were fitted, here or at another desk of the same repository."""
        self.lent: Callable[[Path], Any] | None = None
        """Lends the model of a folder, where somebody has it loaded; who needs one and is lent none loads it."""

    @cached_property
    def discreet(self) -> "Desk":
        """The same for who reads it elsewhere, such as Claude: nothing is told of a commit that touches one of
        ``route.private_paths``, by an old name either, nor of such a file.
        """
        patterns = self.where.settings.route.private_paths
        if not patterns:
            return self
        finder = self.finder.without(matching(self.finder.store.paths(), patterns))
        found = Desk(self.where, finder, self._stack)
        found._whole, found.lent = self, self.lent
        return found

    def private(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of some paths that this desk keeps for itself."""
        return matching(paths, self.where.settings.route.private_paths) if self._whole else ()

    @cached_property
    def shadow(self) -> Shadow:
        return self._whole.shadow if self._whole else self._stack.enter_context(shadow_of(self.where.source))

    @cached_property
    def predictor(self) -> Predictor:
        return self._whole.predictor if self._whole else Predictor(self.finder.history, self.fits)

    @cached_property
    def tip(self) -> str:
        """The newest commit that is indexed of the first of the refs."""
        return self.finder.history.tip(read_refs(self.where.source, self.where.settings.scrape))

    def named(self, commit: str) -> str:
        """The hash of the commit that a branch or HEAD names; any other name is a hash already, or begins one. What
        may be both is a hash.
        """
        begun = commit.lower() if _HASH.fullmatch(commit) else " "
        if not commit or any(name.startswith(begun) for name in self.finder.history.hashes):
            return commit
        refs = read_refs(self.where.source, self.where.settings.scrape)
        return next((ref.tip for ref in refs if ref.name == commit), self.tip if commit == "HEAD" else commit)

    @property
    def limit(self) -> int:
        """How many results are given where it is not said."""
        return self.where.settings.search.limit

    def search(self, query: str, *, limit: int = 0, filters: Filters = NO_FILTERS, at: str = "") -> list[Hit]:
        """The commits that answer a question in words, best first; ``at`` knows only what that commit reaches."""
        text, at = question_of(query), self.named(at)
        return self.finder.search(text, limit=limit or self.limit, filters=texts_of(filters), at=at)

    def similar(self, commit: str, *, limit: int = 0, filters: Filters = NO_FILTERS) -> list[Hit]:
        """The commits that do most nearly what one commit does."""
        return self.finder.similar(self.named(commit), limit=limit or self.limit, filters=texts_of(filters))

    def why(self, place: str, *, limit: int = 0) -> list[Hit]:
        """The commits that explain a file, or a line of it (``FILE:LINE``): those that wrote it by git's own blame,
        those that changed the line before, then those that search finds for its words.
        """
        if "\0" in place:
            raise UsageError("no file has a name with a NUL in it", "name a file of the newest commit")
        named = _LINE.fullmatch(text_of(place))
        path, line = (named[1], int(named[2])) if named else (text_of(place), None)
        path = posixpath.normpath(path)
        if self.private([path]):
            raise UsageError(f"{path} is private", "ask on the machine of its repository")
        limit = limit or self.limit
        wrote = blamed(self.shadow, self.tip, path, line)
        reasons = {name: f"wrote {count:,} of its lines" if line is None else "wrote it" for name, count in wrote}
        for name in line_history(self.shadow, self.tip, path, line) if line else ():
            reasons.setdefault(name, "changed it before")
        content = texts(self.shadow, self.tip, [path]).get(path, "").split("\n")
        words = content[line - 1] if line and line <= len(content) else path
        finder = self.finder
        hits = finder.told({name: reason for name, reason in reasons.items() if name in finder.history.number}, words)
        found = finder.search(text_of(f"{path} {words}"), limit=limit, filters=Filters(path=path))
        return [*hits, *(hit for hit in found if hit.commit_hash not in reasons)][:limit]

    def commit(self, name: str) -> CommitDetail:
        """All that is known of one commit, by its hash or the beginning of it, with the hunks that are indexed."""
        finder = self.finder
        number = finder.number(self.named(text_of(name)))
        commit_id = int(finder.history.ids[number])
        (record,) = finder.store.records(ids=[commit_id])
        if self._whole and not ((merge := finder.history.merged_by[number]) >= 0 and finder.open[merge]):
            record = replace(record, merged_by=None, merge_message="")
        return CommitDetail(record, finder.store.hunks(commit_id), tuple(self.discussed(record)))

    def discussed(self, record: Record) -> list[Thread]:
        """What was said at the forge of a commit; not where it is of another one, too, that is not told of."""
        found = threads.threads_of(self.where.folder, record)
        if not self._whole:
            return found
        history, store, known = self.finder.history, self.finder.store, self._whole.finder.discussed

        def told_of(thread: Thread) -> bool:
            beside = known.commits_of(thread.kind, thread.number) if known else None
            if beside is None:  # it came after the index was opened: whose it is will be known the next time
                return False
            ids = {*history.ids[beside].tolist(), *store.mentioning(f"#{thread.number}")}
            return not any(self.private(one.touched) for one in store.records(ids=sorted(ids)))

        return [thread for thread in found if told_of(thread)]

    def points(self, question: str | Sequence[float], *, limit: int = 0) -> list[Point]:
        """The commits nearest to a vector of the index's model, or those that answer a question in words."""
        finder, limit = self.finder, limit or self.limit
        if isinstance(question, str):
            found = [finder.history.number[hit.commit_hash] for hit in self.search(question, limit=limit)]
        else:
            found = finder.nearest(np.array(question, np.float64), limit=limit)
        records = finder.store.records(ids=[int(finder.history.ids[number]) for number in found])
        return [Point(one.commit_hash, one.author_name, one.message, one.paths) for one in records]

    @property
    def behind(self) -> bool:
        """Whether refs lead elsewhere than the index knows. git is asked only where their files changed."""
        if (seen := self._refs.state()) != self._seen:
            self._seen, self._tips = seen, tips_of(self.where.source, self.where.settings)
        return self.ask(lambda desk: self._tips != desk.finder.store.fact("tips"))

    @property
    def state(self) -> tuple[object, ...]:
        """:func:`state` of the store as it is now, whatever it was when the desk was opened."""
        return self.ask(lambda desk: _state(desk.finder.store))

    @property
    def gone(self) -> bool:
        """Whether the store that was opened is not there any more, or another one is in its place."""
        return self.finder.store.gone

    def ask(self, question: "Callable[[Desk], T]") -> T:
        """What a question is answered with; what the database complains of while it is read is an error of ours."""
        with self.finder.store.complaining():
            return question(self)

    @property
    def touched(self) -> tuple[int | None, ...]:
        """Another value once anyone else has written the store: cheap to ask, and says when to ask for the state."""
        said = self.finder.discussed
        mine = self.ask(lambda desk: desk.finder.store.touched())
        return mine, said.touched() if said else None, threads.touched(self.where.folder)

    def unheard_of(self, given: Sequence[str]) -> list[str]:
        """Those of the files given that nothing is known of: no commit that counts has changed them."""
        return [name for name in given if text_of(name) not in self.predictor.touches.number]

    def files(self, task: str, *, limit: int = 0, given: Sequence[str] = (), at: str = "") -> list[FilePrediction]:
        """The files of ``at`` (the newest commit, by default) that a task will touch; nothing later is known."""
        if not task.strip():
            raise UsageError("the task is empty", "say in words what is to be done")
        history = self.finder.history
        commit = history.hashes[history.find(self.named(at))] if at else self.tip
        mask = history.at(commit) if at else history.everything
        try:
            candidates = tree(self.shadow, commit)
        except GitFailed:  # trees are missing: the files that were changed must do
            touches = self.predictor.touches
            candidates = sorted({touches.names[file] for file in touches.files[mask[touches.commits]]})
        private = set(self.private(candidates))
        candidates = [path for path in candidates if path not in private]
        return self.predictor.predict(
            text_of(task), candidates, mask=mask, limit=limit or self.limit,
            given=[text_of(name) for name in given], contents=partial(texts, self.shadow, commit),
            told=self.finder.open if self._whole else None,
        )  # fmt: skip


@contextmanager
def desk(where: Place, report: Reporter, *, vectors: bool = True, embedder: Embedder | None = None) -> Iterator[Desk]:
    """Open a repository's index for questions. An ``embedder`` that is loaded already is used."""
    with finder(where, report, vectors=vectors, embedder=embedder) as opened, ExitStack() as stack:
        yield Desk(where, opened, stack)


def search(where: Place, query: str, report: Reporter, *, filters: Filters = NO_FILTERS, at: str = "") -> list[Hit]:
    """:meth:`Desk.search` of a repository."""
    with desk(where, report) as opened:
        return opened.search(query, filters=filters, at=at)


def why(where: Place, place: str, report: Reporter) -> list[Hit]:
    """:meth:`Desk.why` of a repository."""
    with desk(where, report) as opened:
        return opened.why(place)


def files(
    where: Place, task: str, report: Reporter, *, given: Sequence[str] = (), at: str = ""
) -> list[FilePrediction]:
    """:meth:`Desk.files` of a repository."""
    with desk(where, report, vectors=False) as opened:
        for name in opened.unheard_of(given):
            report.warn(f"{name} says nothing: no commit of the history changed it")
        return opened.files(task, given=given, at=at)


def state(where: Place) -> tuple[object, ...]:
    """What an index is at: another one when other commits, words or vectors can be found than before, or other texts
    of the forge.
    """
    with where.store(existing=True) as store:
        return _state(store)


def _state(store: Store) -> tuple[object, ...]:
    return store.fact("tips"), store.indexed(), store.vectors(), threads.revision_of(store.folder)


def vectors(embedder: Embedder, texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
    """Unit vectors of texts, and how many tokens of each were read: what is longer than the model reads is cut."""
    read = [min(len(one), embedder.length) for one in embedder.offsets(texts)]
    return embed(embedder, texts).tolist(), read


def text_of(text: str) -> str:
    """What is asked, cut, and as the store tells undecodable bytes: an argument of the command line has them as
    surrogates, which SQLite does not take.
    """
    return as_text(text[:LONGEST_QUERY])


def question_of(query: str) -> str:
    """What is searched for, as it is read. Raises :class:`UsageError` where there is nothing."""
    if not query.strip():
        raise UsageError("the query is empty", "say in words what the commit did")
    return text_of(query)


def texts_of(filters: Filters) -> Filters:
    """Filters as they are read."""
    return replace(filters, author=text_of(filters.author), branch=text_of(filters.branch), path=text_of(filters.path))


HowMany = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class SearchLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of ``treering search --batch``."""

    id: str | int
    query: str
    n: HowMany = 10
    at: str = ""


class FilesLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of ``treering files --batch``."""

    id: str | int
    task: str
    n: HowMany = 10
    at: str = ""
    given: tuple[str, ...] = ()


Answer = dict[str, object]


def search_batch(search: Callable[..., list[Hit]], lines: Iterable[SearchLine]) -> Iterator[Answer]:
    """Answers many questions by the search of one open index, or of many: ``{"id", "hits"}`` each, in order."""
    for number, line in enumerate(lines, start=1):
        with _told_of(number):
            hits = search(line.query, limit=line.n, at=line.at) if line.query.strip() else []
        yield {"id": line.id, "hits": hits}


def files_batch(where: Place, lines: Iterable[FilesLine], report: Reporter) -> Iterator[Answer]:
    """Answers many questions for files with one open index: the same."""
    with desk(where, report, vectors=False) as opened:
        for number, line in enumerate(lines, start=1):
            for name in opened.unheard_of(line.given):
                report.warn(f"line {number}: {name} says nothing: no commit of the history changed it")
            with _told_of(number):
                hits = opened.files(line.task, limit=line.n, at=line.at, given=line.given) if line.task.strip() else []
            yield {"id": line.id, "hits": hits}


@contextmanager
def _told_of(number: int) -> Iterator[None]:
    """What is wrong with a line, with its number."""
    try:
        yield
    except UsageError as error:
        raise DataError(f"line {number}: {error.message}", error.hint) from error
