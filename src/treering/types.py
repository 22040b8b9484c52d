"""The values that flow down the road. Structs of msgspec: as frozen as dataclasses, and ten times faster to make."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from treering.errors import UsageError

Status = Literal["A", "M", "D", "R", "C", "T"]
Flag = Literal["author-date", "committer-date", "encoding", "path-encoding", "shallow", "malformed", "slow"]


class FileChange(Struct, frozen=True):
    """One path of one commit against its first parent, as git's diff states it."""

    status: Status
    path: str
    old_path: str | None = None
    insertions: int = 0
    deletions: int = 0
    binary: bool = False
    submodule: bool = False


class FilePatch(Struct, frozen=True):
    """The unified hunks of one file, from the first ``@@`` on; ``cut`` is how many bytes the cap removed."""

    path: str
    text: str
    cut: int = 0


class Commit(Struct, frozen=True):
    """What git states about a commit, and nothing that a later push could change.

    Times are seconds since 1970 (0 with a flag where git holds an absurd one), offsets minutes east of UTC.
    ``changes`` is against the first parent. ``patches`` is filled only where hunks were asked for, and so are
    ``patch_id`` and ``reverse_id``, equal for equal diffs and for a diff and its inverse.
    """

    hash: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    author_time: int
    author_offset: int
    committer_name: str
    committer_email: str
    committer_time: int
    committer_offset: int
    subject: str
    body: str
    changes: tuple[FileChange, ...] = ()
    diff_complete: bool = True
    unreadable: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    patches: tuple[FilePatch, ...] = ()
    patch_id: str = ""
    reverse_id: str = ""
    references: dict[str, tuple[str, ...]] = {}
    """What its message refers to, by kind."""
    redacted: dict[str, int] = {}
    """How many secrets were taken out of its texts, by rule."""


class Placed(Struct, frozen=True):
    """A commit's place in the history as the refs are now: ``branch`` leads to it first, ``branches`` all do;
    ``merged_by`` is the merge that brought it in.
    """

    hash: str
    branch: str
    branches: tuple[str, ...]
    merged_by: str | None = None


class LineStats(Struct, frozen=True):
    insertions: int
    deletions: int


class Rename(Struct, frozen=True):
    old_path: str
    path: str


class Record(Struct, frozen=True):
    """One line of ``git_history.jsonl``: the seed's keys in the seed's order, then ours."""

    commit_hash: str
    author_name: str
    author_email: str
    message_subject: str
    message_body: str
    branch: str
    is_merge: bool
    files_added: tuple[str, ...]
    files_modified: tuple[str, ...]
    files_deleted: tuple[str, ...]
    insertions: int
    deletions: int
    diff_summary: str
    stats: dict[str, LineStats]
    commit_timestamp: int
    parent_hashes: tuple[str, ...]
    # ours
    repo: str = ""
    files_renamed: tuple[Rename, ...] = ()
    files_binary: tuple[str, ...] = ()
    submodules: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    author_timestamp: int | None = None
    author_offset: int = 0
    committer_name: str | None = None
    committer_email: str | None = None
    committer_offset: int = 0
    diff_complete: bool = True
    unreadable_paths: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    reachable: bool = True
    merged_by: str | None = None
    merge_message: str = ""
    references: dict[str, tuple[str, ...]] = {}
    patch_id: str = ""
    same_patch_as: str | None = None
    undoes: str | None = None
    redacted: dict[str, int] = {}
    patches: tuple[FilePatch, ...] = ()

    @property
    def message(self) -> str:
        return message_of(self.message_subject, self.message_body)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path the commit touched, new names of renames included, in the order of ``stats``."""
        return tuple(self.stats)

    @property
    def touched(self) -> tuple[str, ...]:
        """The same, with the old names of what it renamed."""
        return (*self.paths, *(one.old_path for one in self.files_renamed))


def day_of(seconds: float) -> str:
    """The day of a time, of UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def message_of(subject: str, body: str) -> str:
    return f"{subject}\n\n{body}" if body else subject


def record_of(
    commit: Commit,
    place: Placed,
    repo: str,
    *,
    reachable: bool = True,
    merge_message: str = "",
    same_patch_as: str | None = None,
    undoes: str | None = None,
) -> Record:
    """Join a commit's facts with its present place in the history and with what other commits say of it: the message
    of the merge that brought it, the earliest commit with the same patch, and the newest before it that it undoes.
    """
    stats: dict[str, LineStats] = {}
    for change in commit.changes:
        # Two undecodable names can show as one: their lines add up, so totals stay true.
        seen = stats.get(change.path, LineStats(0, 0))
        stats[change.path] = LineStats(seen.insertions + change.insertions, seen.deletions + change.deletions)
    insertions = sum(change.insertions for change in commit.changes)
    deletions = sum(change.deletions for change in commit.changes)

    def listed(*statuses: Status) -> tuple[str, ...]:
        return tuple(change.path for change in commit.changes if change.status in statuses)

    return Record(
        commit_hash=commit.hash,
        author_name=commit.author_name,
        author_email=commit.author_email,
        message_subject=commit.subject,
        message_body=commit.body,
        branch=place.branch,
        is_merge=len(commit.parents) > 1,
        files_added=listed("A", "C"),
        files_modified=listed("M", "T"),
        files_deleted=listed("D"),
        insertions=insertions,
        deletions=deletions,
        diff_summary=f"Files changed: {len(commit.changes)}, Insertions: +{insertions}, Deletions: -{deletions}",
        stats=stats,
        commit_timestamp=commit.committer_time,
        parent_hashes=commit.parents,
        repo=repo,
        files_renamed=tuple(
            Rename(change.old_path or "", change.path) for change in commit.changes if change.status == "R"
        ),
        files_binary=tuple(change.path for change in commit.changes if change.binary),
        submodules=tuple(change.path for change in commit.changes if change.submodule),
        branches=place.branches,
        author_timestamp=commit.author_time,
        author_offset=commit.author_offset,
        committer_name=commit.committer_name,
        committer_email=commit.committer_email,
        committer_offset=commit.committer_offset,
        diff_complete=commit.diff_complete,
        unreadable_paths=commit.unreadable,
        flags=commit.flags,
        reachable=reachable,
        merged_by=place.merged_by,
        merge_message=merge_message,
        references=commit.references,
        patch_id=commit.patch_id,
        same_patch_as=same_patch_as,
        undoes=undoes,
        redacted=commit.redacted,
        patches=commit.patches,
    )


def commit_of(record: Record) -> Commit:
    """The facts back out of a record; a type change comes back as a modification."""
    binary, submodules = set(record.files_binary), set(record.submodules)
    old_paths = {rename.path: rename.old_path for rename in record.files_renamed}
    added, deleted = set(record.files_added), set(record.files_deleted)

    def status(path: str) -> Status:
        if path in old_paths:
            return "R"
        return "A" if path in added else "D" if path in deleted else "M"

    return Commit(
        hash=record.commit_hash,
        parents=record.parent_hashes,
        author_name=record.author_name,
        author_email=record.author_email,
        author_time=record.commit_timestamp if record.author_timestamp is None else record.author_timestamp,
        author_offset=record.author_offset,
        committer_name=record.author_name if record.committer_name is None else record.committer_name,
        committer_email=record.author_email if record.committer_email is None else record.committer_email,
        committer_time=record.commit_timestamp,
        committer_offset=record.committer_offset,
        subject=record.message_subject,
        body=record.message_body,
        changes=tuple(
            FileChange(
                status=status(path),
                path=path,
                old_path=old_paths.get(path),
                insertions=lines.insertions,
                deletions=lines.deletions,
                binary=path in binary,
                submodule=path in submodules,
            )
            for path, lines in record.stats.items()
        ),
        diff_complete=record.diff_complete,
        unreadable=record.unreadable_paths,
        flags=record.flags,  # type: ignore[arg-type]  # a file's strings; unknown flags are carried, not judged
        patches=record.patches,
        patch_id=record.patch_id,
        references=record.references,
        redacted=record.redacted,
    )


class LeftOut(Struct, frozen=True):
    """How much of a commit a stage did not use, for one reason."""

    files: int
    bytes: int


class Features(Struct, frozen=True):
    """What a commit says, field by field, before it becomes words or vectors."""

    message: str
    paths: tuple[str, ...]
    functions: tuple[str, ...]
    identifiers: dict[str, int]
    prose: str = ""


class IndexedCommit(Struct, frozen=True):
    """What a search knows of every commit. ``message`` is subject and body, ``parents`` are parted by spaces;
    ``repository`` is the place of its own among several.
    """

    id: int
    hash: str
    parents: str
    time: int
    merged_by: str | None
    patch_id: str | None
    message: str
    lengths: bytes
    repository: int = 0


class Headline(Struct, frozen=True):
    """What a hit shows of its commit. ``time`` is the committer's, in seconds since 1970."""

    hash: str
    subject: str
    author: str
    time: int
    branch: str
    paths: tuple[str, ...]


Content = Literal["message", "body", "paths", "hunks", "metadata"]
"""What a line of a document tells."""


class Document(Struct, frozen=True):
    """One text of a commit, of one kind (``message``, ``diff``, or a training strategy's name). ``parts`` says what it
    tells, from its beginning on, with the bytes of each part. The rest is as in :class:`TokenDocument`.
    """

    commit_hash: str
    kind: str
    text: str
    parts: tuple[tuple[Content, int], ...] = ()
    duplicate_of: str | None = None
    group: str = ""


class Amount(Struct, frozen=True):
    bytes: int
    tokens: int


class TokenDocument(Struct, frozen=True):
    """A document as token ids. ``bytes`` is the length of its UTF-8 text; ``duplicate_of`` an earlier commit that says
    the same; ``group`` the merge that brought its commit, or itself if it is one that brought some; ``content`` how
    much of it tells what.
    """

    commit_hash: str
    tokens: Sequence[int]
    bytes: int
    duplicate_of: str | None = None
    group: str = ""
    content: dict[Content, Amount] = {}


class Span(Struct, frozen=True):
    """One document in the stream: ``tokens`` ids, then one end-of-text. Documents of one ``group`` tell parts of the
    same merge.
    """

    commit_hash: str
    tokens: int
    bytes: int
    duplicate_of: str | None = None
    group: str = ""


class Corpus(Struct, frozen=True):
    """What a stream of tokens is: made of which repository, by which tokenizer, from which documents in which order.

    ``vocab_size`` counts added tokens; every id is below it. ``sha256`` is of the ids as ``tokens.bin`` has them, then
    of ``documents`` as JSON.
    """

    vocab_size: int
    num_sequences: int
    total_tokens: int
    sequence_length: int
    repo: str
    strategy: str
    tokenizer: str
    tokenizer_fingerprint: str
    added_tokens: tuple[str, ...]
    eos_id: int
    documents: tuple[Span, ...]
    sha256: str = ""


class Point(Struct, frozen=True):
    """A point as Qdrant takes it: a UUID, a unit vector, a payload."""

    id: str
    vector: list[float]
    payload: dict[str, object]


class Hit(Struct, frozen=True):
    """One search result; ``score`` is comparable within one answer only."""

    commit_hash: str
    score: float
    subject: str
    author: str
    date: str
    branch: str
    files: tuple[str, ...]
    why: str
    merged_by: str | None = None
    hunk_path: str = ""
    hunk: str = ""
    repository: str | UnsetType = UNSET
    """Its name, where several are searched; it is not said of one."""


class Filters(Struct, frozen=True):
    """Which commits a search may answer with. Empty means all but merges. Dates as people write them."""

    author: str = ""
    since: str = ""
    until: str = ""
    branch: str = ""
    path: str = ""
    kind: str = ""
    include_merges: bool = False
    repositories: tuple[str, ...] = ()
    """Names of repositories, where several are searched; may hold ``*``."""


NO_FILTERS = Filters()


class Sampling(Struct, frozen=True):
    """How a model goes on from a prompt. Temperature 0 always takes the likeliest token; ``top_k`` 0 is all of them."""

    max_tokens: int = 128
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 50
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends."""
    seed: int = 7

    def __post_init__(self) -> None:
        may_be = {
            "max_tokens": self.max_tokens >= 1,
            "temperature": self.temperature == 0 or 0.01 <= self.temperature <= 10,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "repetition_penalty": 0.1 <= self.repetition_penalty <= 10,
            "stop": all(self.stop),
            "seed": 0 <= self.seed < 2**32,
        }
        if wrong := [name for name, good in may_be.items() if not good]:
            raise UsageError(f"{wrong[0]} cannot be {getattr(self, wrong[0])!r}", "see `treering generate --help`")


class Generated(Struct, frozen=True):
    """What a model said after a prompt, and why it ended: an end-of-text, a stop text, as many tokens as asked, or
    whoever asked having left.
    """

    text: str
    tokens: int
    seed: int
    ended_by: Literal["end", "stop", "length", "left"]
    prompt_tokens: int = 0


class FilePrediction(Struct, frozen=True):
    """A file that a task will probably touch; ``score`` is a probability as far as the repository's past tells."""

    path: str
    score: float
    why: str


BASELINE = "BM25 on messages"
"""The way to search that the others are compared with."""
VOTE = "vote of the nearest commits"
"""The same for files: 50 commits, each with its score, shared among its files. The best of those that were tried."""
PLAIN_VOTE = "plain vote of the 10 nearest"
"""The same as it is usually done: each has one vote for each of its files."""


class SearchRow(Struct, frozen=True):
    """One way to search on one slice of the cases. ``mrr`` and ``recall`` are at 10; the intervals are of the
    difference to :data:`BASELINE`, 95 % by a paired bootstrap.
    """

    cases_of: str
    way: str
    cases: int
    mrr: float
    recall: float
    mrr_difference: tuple[float, float]
    recall_difference: tuple[float, float]


class FileRow(Struct, frozen=True):
    """One way to predict files, over the newest fifth of the commits; the interval is of the difference to
    :data:`VOTE`.
    """

    way: str
    cases: int
    mrr: float
    recall: float
    recall_difference: tuple[float, float]


class Bench(Struct, frozen=True):
    """What ``treering bench`` measured: ``reports/bench.json``."""

    repo: str
    commits: int
    made: str
    seconds: float
    rows: tuple[SearchRow, ...]
    files: tuple[FileRow, ...]


Better = Literal["lower", "higher", "neither"]
State = Literal["steady", "better", "worse", "too few", "not judged"]


class Moment(Struct, frozen=True):
    """A figure of one run: when it began (seconds since 1970), and of how many cases it is the mean."""

    at: float
    value: float
    cases: int = 1


class Series(Struct, frozen=True):
    """A figure over time. ``newest`` and ``before`` are its means over the runs that are compared, ``change`` the
    difference with its 95 % interval; ``chance`` is how likely so large a difference is where nothing changed.
    """

    name: str
    title: str
    unit: str
    better: Better
    state: State
    points: tuple[Moment, ...]
    newest: float | None = None
    before: float | None = None
    change: tuple[float, float, float] | None = None
    chance: float | None = None


class Lesson(Struct, frozen=True):
    """A training as it is remembered: the model it made, from which, what that cost, and whether it came into use.
    ``bits_per_byte`` are of the same later commits, before and after.
    """

    at: float
    model: str
    parent: str
    promoted: bool
    bits_per_byte: tuple[float | None, float | None]
    tokens: int
    seconds: float
    verdict: str


class Trend(Struct, frozen=True):
    """What the runs of a store tell together, of those that began from ``since`` to ``until`` (seconds since 1970).
    ``alerts`` are the names of the series that got worse; ``dollars`` and ``training_seconds`` are what all of it cost.
    """

    repo: str
    since: float
    until: float
    runs: int
    series: tuple[Series, ...]
    lessons: tuple[Lesson, ...]
    alerts: tuple[str, ...]
    dollars: float
    training_seconds: float
    verdict: str


class Stretch(Struct, frozen=True):
    """A stretch of time with commits, by when it begins (seconds since 1970). Lines are of those that are no merges."""

    start: int
    commits: int
    merges: int
    insertions: int
    deletions: int


class Changed(Struct, frozen=True):
    """How often a path was changed within a time, by how many authors."""

    path: str
    kind: str
    commits: int
    authors: int
    insertions: int
    deletions: int


class HistoryStats(Struct):
    """Running totals over records, as the seed's ``--stats`` block and the report show them."""

    commits: int = 0
    merges: int = 0
    insertions: int = 0
    deletions: int = 0
    merge_insertions: int = 0
    merge_deletions: int = 0
    partial: int = 0
    repeated: int = 0
    redacted: int = 0
    first: int = 0
    last: int = 0
    authors: Counter[str] = field(default_factory=Counter)
    branches: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        self.commits += 1
        if record.is_merge:
            # A merge's diff repeats what it brought in: counted apart, or insertions would double.
            self.merges += 1
            self.merge_insertions += record.insertions
            self.merge_deletions += record.deletions
        else:
            self.insertions += record.insertions
            self.deletions += record.deletions
        self.partial += not record.diff_complete
        self.repeated += record.same_patch_as is not None
        self.redacted += sum(record.redacted.values())
        if time := record.commit_timestamp:
            self.first = min(self.first or time, time)
            self.last = max(self.last, time)
        self.authors[record.author_email or record.author_name] += 1
        self.branches[record.branch] += 1

    @property
    def days(self) -> int:
        return (self.last - self.first) // 86400

    def text(self) -> str:
        """The seed's block, with merges' lines counted apart."""
        share = 100 * self.merges / self.commits if self.commits else 0.0
        lines = [
            f"Total commits: {self.commits:,}",
            f"Total merges: {self.merges:,}",
            f"Merge percentage: {share:.2f}%",
            f"Total insertions: {self.insertions:,}",
            f"Total deletions: {self.deletions:,}",
            f"Insertions seen again in merges: {self.merge_insertions:,}",
            f"Deletions seen again in merges: {self.merge_deletions:,}",
            f"Unique authors: {len(self.authors):,}",
            f"Unique branches: {len(self.branches):,}",
            f"Time span: {self.days:,} days",
            f"Commits per day: {self.commits / max(self.days, 1):.1f}",
        ]
        if self.partial:
            lines.append(f"Commits with a partial diff: {self.partial:,}")
        if self.repeated:
            lines.append(f"Commits that repeat an earlier patch: {self.repeated:,}")
        if self.redacted:
            lines.append(f"Secrets taken out: {self.redacted:,}")
        return "\n".join(lines)
