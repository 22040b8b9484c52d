"""The four ways to tell a commit to a language model."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from treering.types import Document, Record

FINGERPRINT = "strategies-2"

MARKERS = (
    "<COMMIT>", "<AUTHOR>", "<BRANCH>", "<CHAIN>", "<PREVIOUS>", "<MESSAGE>", "<BODY>", "<MERGE>", "<FILE_ADD>",
    "<FILE_MOD>", "<FILE_DEL>", "<FILE_REN>", "<INSERTIONS>", "<DELETIONS>", "<PATH>", "<HUNK>",
)  # fmt: skip
"""Every marker a document may hold; as text, or added to the vocabulary."""

PATHS = 32
PREDECESSORS = 3
BODY_CHARACTERS = 2000
TELLING_LINES = 8
"""Two plain commits with the same paths and line counts are taken for the same diff from this many lines on."""


def _semantic(record: Record, _: "Subjects") -> Iterator[str]:
    yield f"<COMMIT> {record.commit_hash[:7]}"
    yield f"<AUTHOR> {record.author_name.replace(' ', '_')}"
    yield f"<BRANCH> {record.branch}"
    yield from _told(record)


def _hierarchical(record: Record, previous: "Subjects") -> Iterator[str]:
    yield f"<COMMIT> {record.commit_hash[:7]}"
    yield f"<AUTHOR> {record.author_name.replace(' ', '_')}"
    yield f"<CHAIN> {' > '.join(record.branches or (record.branch,))}"
    for parent in previous.before(record):
        yield f"<PREVIOUS> {parent}"
    yield from _told(record)


def _diff_aware(record: Record, _: "Subjects") -> Iterator[str]:
    yield f"<COMMIT> {record.commit_hash[:7]}"
    yield f"<MESSAGE> {record.message_subject}"
    hunks = {patch.path: patch for patch in record.patches}
    for path in _paths(record):
        lines = record.stats[path]
        yield f"<PATH> {path} +{lines.insertions} -{lines.deletions}"
        if patch := hunks.get(path):
            yield f"<HUNK> {patch.text}"


def _flat(record: Record, _: "Subjects") -> Iterator[str]:
    yield f"{record.commit_hash[:7]} {record.author_name} {record.branch}"
    yield record.message
    yield from _paths(record)


def _told(record: Record) -> Iterator[str]:
    yield f"<MESSAGE> {record.message_subject}"
    if record.message_body:
        yield f"<BODY> {record.message_body[:BODY_CHARACTERS]}"
    if record.is_merge:
        yield f"<MERGE> {len(record.parent_hashes)}"
    yield f"<FILE_ADD> {len(record.files_added)}"
    yield f"<FILE_MOD> {len(record.files_modified)}"
    yield f"<FILE_DEL> {len(record.files_deleted)}"
    if record.files_renamed:
        yield f"<FILE_REN> {len(record.files_renamed)}"
    yield f"<INSERTIONS> {record.insertions}"
    yield f"<DELETIONS> {record.deletions}"
    for path in _paths(record):
        yield f"<PATH> {path}"


def _paths(record: Record) -> list[str]:
    # In sorted order a model learns to answer the first names of the alphabet; this order is fixed but has no meaning.
    def scattered(path: str) -> bytes:
        return hashlib.blake2b(f"{record.commit_hash}{path}".encode(), digest_size=8).digest()

    return sorted(record.stats, key=scattered)[:PATHS]


class Subjects:
    """Subjects of the commits that went by, to name predecessors with. One line per commit is held."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}

    def add(self, record: Record) -> None:
        first_parent = record.parent_hashes[0] if record.parent_hashes else ""
        self._seen[record.commit_hash] = (record.message_subject, first_parent)

    def before(self, record: Record) -> list[str]:
        """The subjects along the first parents, nearest last."""
        found: list[str] = []
        name = record.parent_hashes[0] if record.parent_hashes else ""
        while len(found) < PREDECESSORS and name in self._seen:
            subject, name = self._seen[name]
            found.append(subject)
        return found[::-1]


STRATEGIES: dict[str, Callable[[Record, Subjects], Iterator[str]]] = {
    "semantic": _semantic,
    "hierarchical": _hierarchical,
    "diff-aware": _diff_aware,
    "flat": _flat,
}
NEEDS_PATCHES = frozenset({"diff-aware"})


def documents(records: Iterable[Record], strategy: str) -> Iterator[tuple[Record, Document]]:
    """Each record with its document, in the order given (parents before children, for predecessors to be known)."""
    tell = STRATEGIES[strategy]
    subjects = Subjects()
    for record in records:
        yield record, Document(record.commit_hash, strategy, "\n".join(tell(record, subjects)) + "\n")
        subjects.add(record)


def message_prompt(strategy: str, message: str) -> str:
    """The beginning of a commit's message as a strategy tells it, for a model of that strategy to go on from."""
    return message if strategy == "flat" else f"<MESSAGE> {message}"


class Duplicates:
    """Finds commits that say again what an earlier one said: the same patch (a merge and its only child, a
    cherry-pick) or the same message. They would leak over a split in time. Where no patch was read, figures must do.
    """

    def __init__(self) -> None:
        self._diffs: dict[object, str] = {}
        self._messages: dict[str, str] = {}
        self.found: Counter[str] = Counter()

    def of(self, record: Record) -> str | None:
        """The hash of the earlier commit that this one repeats, if any."""
        figures = tuple((path, lines.insertions, lines.deletions) for path, lines in record.stats.items())
        diff = record.patch_id or (figures, record.files_added, record.files_deleted)
        # A merge repeats what it brought in. Of others, a few lines could be anybody's, like a version's one line.
        telling = record.patch_id or record.is_merge or record.insertions + record.deletions >= TELLING_LINES
        message = " ".join(record.message.lower().split())
        same_diff = self._diffs.setdefault(diff, record.commit_hash) if figures else record.commit_hash
        same_message = self._messages.setdefault(message, record.commit_hash)
        if telling and same_diff != record.commit_hash:
            self.found["diff"] += 1
            return same_diff
        if same_message != record.commit_hash:
            self.found["message"] += 1
            return same_message
        return None
