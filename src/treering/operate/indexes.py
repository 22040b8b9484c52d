"""The index of a store against what it was made of: words against documents, vectors against texts."""

import zlib
from collections import defaultdict
from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from treering.operate.histories import redo_documents, unpacked
from treering.operate.subject import Seen, Subject
from treering.pipeline import index as index_stage
from treering.store.index import HOLDER, postings
from treering.text import document
from treering.text.words import forms
from treering.types import Features
from treering.vectors.embedder import Embedder, embed
from treering.vectors.flat import FlatMatrix
from treering.vectors.index import Matrix

SAMPLE = 500
"""So many documents have their words counted again where not everything is looked at."""
TEXTS = 64
"""So many texts are embedded again."""
SAME = 1e-3
"""How far the cosine of a vector and the one made again may be from 1: batches of other lengths round otherwise."""
ROWS = 65_536
"""How many vectors are looked at at once."""

Name = tuple[int, str, int]
"""Of a vector: commit id, kind and part of the text."""
Sums = npt.NDArray[np.uint64]


def check_words(on: Subject) -> Seen:
    """Whether the postings are those of the documents: for each commit and field how many words there are, and for
    some commits (or all) which words those are.
    """
    store, seen = on.store, Seen()
    lengths: dict[int, npt.NDArray[np.uint32]] = {}
    torn: list[int] = []
    waiting = 0
    for number, features, hunks, _, kinds, counted in store.documents():
        try:
            msgspec.json.decode(features, type=Features)
            unpacked(hunks)
            msgspec.json.decode(kinds, type=list[str])
        except ValueError:
            torn.append(number)
            continue
        if counted is None:
            waiting += 1
        elif len(counted) != 4 * len(document.FIELDS):
            torn.append(number)
        else:
            lengths[number] = np.frombuffer(counted, "<u4")
    on.torn = set(torn)
    if torn:
        seen.fault(f"{len(torn):,} documents cannot be read", torn)
        seen.commits |= set(torn)
    if waiting:
        seen.notes.append(f"the words of {waiting:,} commits wait to be indexed: run `treering index`")
    _compare_words(on, seen, lengths)
    return seen


def _compare_words(on: Subject, seen: Seen, lengths: dict[int, npt.NDArray[np.uint32]]) -> None:
    store = on.store
    size = max(lengths, default=0) + 1
    fields = len(document.FIELDS)
    sums = np.zeros((size, fields), np.int64)
    clipped = np.zeros((size, fields), np.bool_)
    marks = np.zeros(size, np.uint64)
    there = np.zeros(size, np.bool_)
    there[list(lengths)] = True
    words = nowhere = broken = 0
    for word, held in store.postings():
        words += 1
        if len(held) % HOLDER.itemsize:
            broken += 1
            continue
        found = np.frombuffer(held, HOLDER)
        commits, field = found["commit"].astype(np.int64), found["field"].astype(np.int64)
        fits = (commits < size) & (field < fields)
        fits[fits] = there[commits[fits]]
        nowhere += int((~fits).sum())
        broken += int((np.diff(commits) < 0).any())
        commits, field, counts = commits[fits], field[fits], found["count"][fits].astype(np.int64)
        np.add.at(sums, (commits, field), counts)
        clipped[commits[counts == 0xFFFF], field[counts == 0xFFFF]] = True
        np.add.at(marks, commits, _marks(word, found[fits]))
    if nowhere:
        seen.fault(f"{nowhere:,} postings lead to no document")
    if broken:
        seen.fault(f"the postings of {broken:,} words are torn")
    other = [number for number, row in lengths.items() if ((sums[number] != row) & ~clipped[number]).any()]
    if other:
        seen.fault(f"{len(other):,} commits have more or fewer words than they are said to have", other)
    chosen = on.some(sorted(set(lengths) - set(other)), SAMPLE)
    different = []
    for start in range(0, len(chosen), index_stage.WORDS_BATCH):
        batch = chosen[start : start + index_stage.WORDS_BATCH]
        wanted = _marks_of(on, batch, size)
        different += [number for number in batch if wanted[number] != marks[number]]
    if different:
        seen.fault(f"{len(different):,} commits are found by other words than they hold", different)
    seen.looked_at = (
        f"{len(lengths):,} documents, {words:,} words; the words of {len(chosen):,} documents counted again"
    )


def _marks_of(on: Subject, batch: list[int], size: int) -> Sums:
    said = on.store.features(batch)
    written = [(number, document.word_counts(one, on.store.hunks(number))) for number, one in said]
    marks = np.zeros(size, np.uint64)
    for word, held in postings(written, forms)[0].items():
        found = np.frombuffer(held, HOLDER)
        np.add.at(marks, found["commit"].astype(np.int64), _marks(word, found))
    return marks


def _marks(word: str, found: npt.NDArray[np.void]) -> Sums:
    """A number for each record of a word. Those of a commit are added up: it then has another sum than one that holds
    other words, or in other fields, or not as often. Multiplied as Steele, Lea and Flood mix (SplitMix64, 2014).
    """
    raw = word.encode("utf-8", "surrogatepass")
    key = np.uint64(zlib.crc32(raw) << 32 | zlib.adler32(raw))
    mixed = key + found["field"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += found["count"].astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def mend_words(on: Subject, seen: Seen) -> list[str]:
    """Index all words again; documents that cannot be read are first made from git again."""
    if seen.commits:
        return redo_documents(on, seen.commits)
    on.store.forget_words()
    return [f"the words of {index_stage.index_words(on.store, on.report):,} commits were indexed again"]


def check_vectors(on: Subject) -> Seen:
    """Whether every row that is named is a unit vector of a text that is there; and some (or all) are made again."""
    store, seen = on.store, Seen()
    models = store.fingerprints()
    rows = 0
    for fingerprint, (count, last) in models.items():
        path = store.folder / "vectors" / fingerprint / "vectors.f32"
        rows += count
        if last != count - 1:
            seen.fault(f"the rows of {fingerprint} are not numbered one after the other")
            seen.folders.append(path.parent)
            continue
        if on.embedder is not None and on.embedder.fingerprint == fingerprint:
            _check_own(on, on.embedder, seen, count)
        else:
            seen.notes.append(f"{count:,} vectors of {fingerprint} are of a model that is not in use: not looked at")
    again = ""
    if on.embedder is None:
        seen.notes.append("the embedding model is not on this machine: no vector was compared with its text")
    elif on.torn:
        seen.notes.append("documents cannot be read: no vector was compared with its text")
    else:
        again = _check_texts(on, on.embedder, seen) if not seen.folders else ""
        if missing := len(store.unembedded(on.embedder.fingerprint)):
            seen.notes.append(f"{missing:,} commits have texts without a vector: run `treering index`")
    seen.looked_at = f"{rows:,} vectors{again}"
    return seen


def _check_own(on: Subject, embedder: Embedder, seen: Seen, count: int) -> None:
    """Numbers that are finite and of length 1, in rows whose names lead to a text."""
    store = on.store
    path = store.folder / "vectors" / embedder.fingerprint / "vectors.f32"
    matrix = _matrix(on, embedder, count)
    broken: list[int] = []
    if len(matrix) < count:
        seen.rows |= set(range(len(matrix), count))
        seen.fault(f"{path.parent.name}/{path.name} is gone or torn: {count - len(matrix):,} of its vectors are lost")
    for start in range(0, len(matrix), ROWS):
        some = np.asarray(matrix[start : start + ROWS], np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            length = np.einsum("ij,ij->i", some, some)
            good = np.abs(length - 1) < 1e-2
        broken += (np.flatnonzero(~good) + start).tolist()
    if broken:
        seen.rows |= set(broken)
        seen.fault(f"{len(broken):,} rows hold what is no vector", broken)
    if on.torn:
        return
    kinds = {number: set(msgspec.json.decode(of)) for number, _, _, _, of, _ in store.documents()}
    names = store.vector_names(embedder.fingerprint)
    lost = [row for row, (number, kind, _) in enumerate(names) if kind not in kinds.get(number, ())]
    if lost:
        seen.fault(f"{len(lost):,} vectors are of no text", lost)
        seen.folders.append(path.parent)
    parts: dict[tuple[int, str], set[int]] = defaultdict(set)
    for number, kind, part in names:
        parts[number, kind].add(part)
    gaps = [number for (number, _), of in parts.items() if 0 in of and of != set(range(len(of)))]
    if gaps:
        seen.fault(f"parts of the texts of {len(gaps):,} commits have no vector", gaps)
        seen.folders.append(path.parent)


def _matrix(on: Subject, embedder: Embedder, count: int) -> Matrix:
    """The rows that the file holds, at most ``count``."""
    path = on.store.folder / "vectors" / embedder.fingerprint / "vectors.f32"
    there = path.stat().st_size // (4 * embedder.dimensions) if path.is_file() else 0
    if not there:
        return np.zeros((0, embedder.dimensions), np.float32)
    return np.memmap(path, "<f4", "r", shape=(min(there, count), embedder.dimensions))


def _check_texts(on: Subject, embedder: Embedder, seen: Seen) -> str:
    """Embed some texts again and compare."""
    store = on.store
    names = store.vector_names(embedder.fingerprint)
    owner = {name: row for row, name in enumerate(names)}
    chosen = on.some([row for row in range(len(names)) if row not in seen.rows], TEXTS)
    chosen += [row for row, (number, _, _) in enumerate(names) if number in on.suspect and row not in seen.rows]
    made = made_again(on, embedder, {names[row] for row in chosen})
    if not made:
        return ""
    path = store.folder / "vectors" / embedder.fingerprint / "vectors.f32"
    matrix = _matrix(on, embedder, len(names))
    other = [name for name, row in made.items() if not abs(float(matrix[owner[name]] @ row) - 1) < SAME]
    if other:
        seen.rows |= {owner[name] for name in other}
        seen.fault(f"{len(other):,} vectors are not those of their texts", sorted(owner[name] for name in other))
    gone = {names[row] for row in chosen} - made.keys()
    if gone:
        seen.fault(f"{len(gone):,} vectors are of texts that are no longer there")
        seen.folders.append(path.parent)
    return f"; {len(made):,} texts embedded again"


def made_again(on: Subject, embedder: Embedder, names: Iterable[Name]) -> dict[Name, Matrix]:
    """The vectors of the texts named, made now; a name of no text is left out."""
    wanted: dict[int, set[str]] = defaultdict(set)
    asked = set(names)
    for number, kind, _ in asked:
        wanted[number].add(kind)
    found = [(name, text) for name, text in index_stage.texts_of(on.store, embedder, wanted) if name in asked]
    rows = embed(embedder, [text for _, text in found])
    return {name: row for (name, _), row in zip(found, rows, strict=True)}


def mend_vectors(on: Subject, seen: Seen) -> list[str]:
    """Make the vectors that are wrong again, in their rows; where the names are wrong, all of that model."""
    store, said = on.store, []
    for folder in dict.fromkeys(seen.folders):
        store.forget_vectors(folder.name)
        if folder.exists():
            on.aside.take(folder)
        said.append(f"the vectors of {folder.name} were taken out")
    if on.embedder is None:
        return said
    if seen.rows and not seen.folders:
        names = store.vector_names(on.embedder.fingerprint)
        made = made_again(on, on.embedder, {names[row] for row in seen.rows})
        matrix = FlatMatrix(store.folder / "vectors" / on.embedder.fingerprint, on.embedder.dimensions)
        if matrix.path.is_file():
            on.aside.copy(matrix.path)
        matrix.mend({row: made[names[row]] for row in seen.rows if names[row] in made})
        said.append(f"{len(seen.rows):,} vectors were made again")
    if seen.folders:
        embedder = on.embedder
        said.append(f"{index_stage.index_vectors(store, lambda: embedder, on.report):,} vectors were made")
    return said
