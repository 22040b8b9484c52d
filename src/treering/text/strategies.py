"""The four ways to tell a commit to a language model."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from treering.text.kinds import NOISE, kind_of
from treering.types import Content, Document, FilePatch, LeftOut, Record

FINGERPRINT = "strategies-3"

MARKERS = (
    "<COMMIT>", "<AUTHOR>", "<BRANCH>", "<CHAIN>", "<PREVIOUS>", "<MESSAGE>", "<BODY>", "<MERGE>", "<FILE_ADD>",
    "<FILE_MOD>", "<FILE_DEL>", "<FILE_REN>", "<INSERTIONS>", "<DELETIONS>", "<PATH>", "<HUNK>",
)  # fmt: skip
"""Every marker a document may hold; as text, or added to the vocabulary."""

PATHS = 32
PREDECESSORS = 3
BODY_CHARACTERS = 2000
DOCUMENT_CHARACTERS = 32768
"""What a document has at most, whatever the caps of hunks are: one giant commit must not outweigh a thousand others."""
TELLING_LINES = 8
"""Two plain commits with the same paths and line counts are taken for the same diff from this many lines on."""

Line = tuple[Content, str]

_PLACE = re.compile(r"^@@ -[^@\n]* @@.*$", re.MULTILINE)


class Duplicates:
    """Finds commits that say again what an earlier one said: the same patch (a merge and its only child, a
    cherry-pick) or the same message. They would leak over a split in time. Where no patch was read, figures must do.
    """

    def __init__(self) -> None:
        self._diffs: dict[bytes, str] = {}
        self._messages: dict[bytes, str] = {}
        self.found: Counter[str] = Counter()

    def of(self, record: Record) -> str | None:
        """The hash of the earlier commit that this one repeats, if any."""
        figures = tuple((path, lines.insertions, lines.deletions) for path, lines in record.stats.items())
        diff = _digest(record.patch_id or repr((figures, record.files_added, record.files_deleted)))
        # A merge repeats what it brought in. Of others, a few lines could be anybody's, like a version's one line.
        telling = record.patch_id or record.is_merge or record.insertions + record.deletions >= TELLING_LINES
        message = _digest(" ".join(record.message.lower().split()))
        same_diff = self._diffs.setdefault(diff, record.commit_hash) if figures else record.commit_hash
        same_message = self._messages.setdefault(message, record.commit_hash)
        if telling and same_diff != record.commit_hash:
            self.found["diff"] += 1
            return same_diff
        if same_message != record.commit_hash:
            self.found["message"] += 1
            return same_message
        return None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


class Telling:
    """What the documents of one history have in common: the subjects that went by, to name predecessors with; which
    commits repeat another; the patches told already; the merges that brought something; and, by reason, what was
    ``left_out``. Some hundred bytes are held for each commit and for each file of its patch.
    """

    def __init__(self, kind: Callable[[str], str] = kind_of) -> None:
        self.left_out: dict[str, LeftOut] = {}
        self.duplicates = Duplicates()
        self._kind = kind
        self._subjects: dict[str, tuple[str, str]] = {}
        self._merges: set[str] = set()
        self._patches: set[bytes] = set()
        self._telling: set[bytes] = set()

    def leave(self, reason: str, size: int) -> None:
        """Count ``size`` bytes of one file, or of one document, as left out."""
        before = self.left_out.get(reason, LeftOut(0, 0))
        self.left_out[reason] = LeftOut(before.files + 1, before.bytes + size)

    def group(self, record: Record) -> str:
        """The merge that brought a commit; a merge that brought some is of its own group. Commits that a merge
        brought must have been :meth:`passed`, as they are before it.
        """
        return record.commit_hash if record.commit_hash in self._merges else record.merged_by or ""

    def passed(self, record: Record, duplicate_of: str | None) -> None:
        """Remember a commit for those that come after it. What one told that repeats another does not count as told:
        nobody will learn from it.
        """
        first_parent = record.parent_hashes[0] if record.parent_hashes else ""
        self._subjects[record.commit_hash] = (record.message_subject[:BODY_CHARACTERS], first_parent)
        if record.merged_by:
            self._merges.add(record.merged_by)
        if duplicate_of is None:
            self._patches |= self._telling
        self._telling.clear()

    def before(self, record: Record) -> list[str]:
        """The subjects along the first parents, nearest last."""
        found: list[str] = []
        name = record.parent_hashes[0] if record.parent_hashes else ""
        while len(found) < PREDECESSORS and name in self._subjects:
            subject, name = self._subjects[name]
            found.append(subject)
        return found[::-1]

    def hunks(self, record: Record, paths: list[str]) -> dict[str, str]:
        """The hunks to tell of a commit, by path: none of noise, none of other paths, none that were told before."""
        told: dict[str, str] = {}
        for patch in record.patches:
            kind = self._kind(patch.path)
            size = len(patch.text.encode())
            if kind in NOISE:
                self.leave(f"hunks of {kind}", size + patch.cut)
            elif patch.path not in paths:
                self.leave(f"hunks of more than {PATHS} files", size + patch.cut)
            elif (key := _patch_key(patch)) in self._patches:
                self.leave("hunks told before", size + patch.cut)
            else:
                told[patch.path] = told.get(patch.path, "") + patch.text
                self._telling.add(key)
                if patch.cut:
                    self.leave("hunks cut at the caps", patch.cut)
        return told


def _patch_key(patch: FilePatch) -> bytes:
    """Equal for the same lines of the same file, wherever in it they are."""
    return _digest(f"{patch.path}\n{patch.cut}\n{_PLACE.sub('@@', patch.text)}")


def _semantic(record: Record, telling: Telling) -> Iterator[Line]:
    yield "metadata", f"<COMMIT> {record.commit_hash[:7]}"
    yield "metadata", f"<AUTHOR> {record.author_name.replace(' ', '_')}"
    yield "metadata", f"<BRANCH> {record.branch}"
    yield from _told(record, telling)


def _hierarchical(record: Record, telling: Telling) -> Iterator[Line]:
    yield "metadata", f"<COMMIT> {record.commit_hash[:7]}"
    yield "metadata", f"<AUTHOR> {record.author_name.replace(' ', '_')}"
    yield "metadata", f"<CHAIN> {' > '.join(record.branches or (record.branch,))}"
    for parent in telling.before(record):
        yield "metadata", f"<PREVIOUS> {parent}"
    yield from _told(record, telling)


def _diff_aware(record: Record, telling: Telling) -> Iterator[Line]:
    yield "metadata", f"<COMMIT> {record.commit_hash[:7]}"
    yield "message", f"<MESSAGE> {record.message_subject}"
    paths = _paths(record)
    hunks = telling.hunks(record, paths)
    for path in paths:
        lines = record.stats[path]
        yield "paths", f"<PATH> {path} +{lines.insertions} -{lines.deletions}"
        if text := hunks.get(path, "").removesuffix("\n"):
            yield "hunks", f"<HUNK> {text}"


def _flat(record: Record, _: Telling) -> Iterator[Line]:
    yield "metadata", f"{record.commit_hash[:7]} {record.author_name} {record.branch}"
    yield "message", record.message_subject
    if record.message_body:
        yield "body", f"\n{record.message_body}"
    yield from (("paths", path) for path in _paths(record))


def _told(record: Record, telling: Telling) -> Iterator[Line]:
    yield "message", f"<MESSAGE> {record.message_subject}"
    if record.message_body:
        yield "body", f"<BODY> {record.message_body[:BODY_CHARACTERS]}"
        if rest := record.message_body[BODY_CHARACTERS:]:
            telling.leave(f"bodies from {BODY_CHARACTERS:,} characters on", len(rest.encode()))
    if record.is_merge:
        yield "metadata", f"<MERGE> {len(record.parent_hashes)}"
    yield "metadata", f"<FILE_ADD> {len(record.files_added)}"
    yield "metadata", f"<FILE_MOD> {len(record.files_modified)}"
    yield "metadata", f"<FILE_DEL> {len(record.files_deleted)}"
    if record.files_renamed:
        yield "metadata", f"<FILE_REN> {len(record.files_renamed)}"
    yield "metadata", f"<INSERTIONS> {record.insertions}"
    yield "metadata", f"<DELETIONS> {record.deletions}"
    yield from (("paths", f"<PATH> {path}") for path in _paths(record))


def _paths(record: Record) -> list[str]:
    # In sorted order a model learns to answer the first names of the alphabet; this order is fixed but has no meaning.
    def scattered(path: str) -> bytes:
        return hashlib.blake2b(f"{record.commit_hash}{path}".encode(), digest_size=8).digest()

    return sorted(record.stats, key=scattered)[:PATHS]


STRATEGIES: dict[str, Callable[[Record, Telling], Iterator[Line]]] = {
    "semantic": _semantic,
    "hierarchical": _hierarchical,
    "diff-aware": _diff_aware,
    "flat": _flat,
}
NEEDS_PATCHES = frozenset({"diff-aware"})


def documents(
    records: Iterable[Record], strategy: str, telling: Telling | None = None
) -> Iterator[tuple[Record, Document]]:
    """Each record with its document, in the order given (parents before children, for predecessors to be known)."""
    tell = STRATEGIES[strategy]
    telling = telling or Telling()
    for record in records:
        lines = _bounded(tell(record, telling), telling)
        text = "".join(text for _, text in lines)
        parts = tuple(
            (content, sum(len(line.encode()) for _, line in same))
            for content, same in groupby(lines, key=lambda line: line[0])
        )
        repeated = telling.duplicates.of(record)
        yield record, Document(record.commit_hash, strategy, text, parts, repeated, telling.group(record))
        telling.passed(record, repeated)


def message_prompt(strategy: str, message: str) -> str:
    """The beginning of a commit's message as a strategy tells it, for a model of that strategy to go on from."""
    return message if strategy == "flat" else f"<MESSAGE> {message}"


def _bounded(lines: Iterable[Line], telling: Telling) -> list[Line]:
    """The lines, each ended, as far as :data:`DOCUMENT_CHARACTERS` go. The last of hunks is a whole line of them."""
    kept: list[Line] = []
    room, cut = DOCUMENT_CHARACTERS, 0
    for content, line in lines:
        text = f"{line}\n"
        if len(text) > room:
            fits = text[: text.rfind("\n", 0, room) + 1] or (f"{text[: room - 1]}\n" if room > 1 else "")
            cut += len(text.encode()) - len(fits.encode())
            text, room = fits, 0
        room -= len(text) if room else 0
        if text:
            kept.append((content, text))
    if cut:
        telling.leave(f"documents from {DOCUMENT_CHARACTERS:,} characters on", cut)
    return kept
