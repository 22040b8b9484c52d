"""Histories told outright, for tests of what is found in them: no repository, a real store."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from treering.pipeline.common import Kinds
from treering.pipeline.index import add_features, index_words
from treering.report import Reporter
from treering.store import Store
from treering.types import Commit, FileChange, FilePatch, Placed
from treering.vectors.embedder import Embedder
from treering.vectors.index import Matrix


def name_of(number: int) -> str:
    return f"{number:040x}"


def told(
    number: int,
    message: str,
    *,
    parents: Sequence[int] | None = None,
    path: str = "",
    patches: Sequence[FilePatch] = (),
    patch_id: str = "",
) -> Commit:
    """Commit ``number`` of a history, after the one before it; it changes ``path``, or a file of its own."""
    before = [number - 1] if number > 1 else []
    subject, _, body = message.partition("\n\n")
    paths = [patch.path for patch in patches] or [path or f"src/file_{number}.py"]
    return Commit(
        hash=name_of(number), parents=tuple(map(name_of, before if parents is None else parents)),
        author_name="Ada", author_email="ada@example.com", author_time=number, author_offset=0,
        committer_name="Ada", committer_email="ada@example.com", committer_time=number, committer_offset=0,
        subject=subject, body=body, changes=tuple(FileChange("M", path) for path in paths), patches=tuple(patches),
        patch_id=patch_id,
    )  # fmt: skip


def added(path: str, *lines: str) -> FilePatch:
    """A hunk that adds lines."""
    return FilePatch(path, f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines))


def remember(store: Store, commits: Sequence[Commit], merged_by: dict[int, int] | None = None) -> None:
    """Index commits by their words, oldest first, of one branch. ``merged_by`` says which merge brought one."""
    brought = {name_of(one): name_of(merge) for one, merge in (merged_by or {}).items()}
    with store.writing("a test"):
        store.append(commits)
        store.place(Placed(commit.hash, "main", ("main",), brought.get(commit.hash)) for commit in commits)
        add_features(store, commits, Kinds(None))
        index_words(store, Reporter())


class LetterModel(Embedder):
    """A model that costs nothing: a text's vector is how often groups of three letters come in it. ``seed`` makes
    another model of it; ``most`` is how many characters it reads.
    """

    dimensions = 64

    def __init__(self, seed: int = 0, most: int = 10_000) -> None:
        self.seed, self.length = seed, most
        self.name = self.fingerprint = f"letters-{seed}-{most}"

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        return [[(place, place + 1) for place in range(len(text))] for text in texts]

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Matrix]]:
        for position, text in enumerate(texts):
            row = np.zeros((1, self.dimensions), np.float32)
            for start in range(max(1, len(text) - 2)):
                row[0, zlib.crc32(f"{self.seed}{text[start : start + 3].lower()}".encode()) % self.dimensions] += 1
            yield [position], row / np.linalg.norm(row)
