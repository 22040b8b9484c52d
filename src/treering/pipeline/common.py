"""What the stages share: how a commit is read for everything that comes after, and what is counted on the way."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from treering.config import Settings
from treering.files import write_json
from treering.git.reader import Attributes, Caps, Reader
from treering.store import Store
from treering.text.kinds import Kind, kind_of
from treering.text.references import references
from treering.text.secrets import Redactor
from treering.types import Commit, Placed, message_of

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def fingerprint_of(*parts: object) -> str:
    # A setting may hold bytes of a path that are no UTF-8, as surrogates, which JSON cannot hold.
    return hashlib.sha256(repr(msgspec.to_builtins(parts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def caps_of(settings: Settings) -> Caps:
    return Caps(settings.scrape.patch_file_bytes, settings.scrape.patch_commit_bytes)


def read(reader: Reader, names: Iterable[str], settings: Settings, *, caps: Caps | None) -> Iterator[Commit]:
    """The commits named, as every stage gets them: without secrets, their references told, their people unified."""
    clean = Cleaner(settings)
    for commit in reader.commits(names, caps=caps):
        if reader.people:
            author = reader.people(commit.author_name, commit.author_email)
            committer = reader.people(commit.committer_name, commit.committer_email)
            commit = replace(
                commit,
                author_name=author[0],
                author_email=author[1],
                committer_name=committer[0],
                committer_email=committer[1],
            )
        yield clean(commit)


RECENT = 4096
_PEOPLE = ("author_name", "author_email", "committer_name", "committer_email")


class Cleaner:
    """Takes the secrets out of commits."""

    def __init__(self, settings: Settings) -> None:
        self.text = Redactor(settings.scrape.allow_secrets)
        self._known: dict[str, tuple[str, Counter[str]]] = {}
        self._recent: dict[str, tuple[str, Counter[str]]] = {}
        self._branches: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __call__(self, commit: Commit) -> Commit:
        found: Counter[str] = Counter()
        subject, body = self.text(commit.subject, found), self.text(commit.body, found)
        return replace(
            commit,
            subject=subject,
            body=body,
            **{name: self._short(getattr(commit, name), found) for name in _PEOPLE},
            changes=tuple(
                replace(
                    change,
                    path=self._short(change.path, found),
                    old_path=None if change.old_path is None else self._short(change.old_path, found),
                )
                if self._strange(change.path) or (change.old_path and self._strange(change.old_path))
                else change
                for change in commit.changes
            ),
            patches=tuple(
                replace(patch, path=self._short(patch.path, Counter()), text=self._hunks(patch.text, found))
                for patch in commit.patches
            ),
            unreadable=tuple(self._short(path, Counter()) for path in commit.unreadable),
            references=references(message_of(subject, body)),
            redacted=dict(sorted((commit.redacted | found).items())),
        )

    def place(self, place: Placed) -> Placed:
        """The same for the names of branches."""
        if place.branches not in self._branches:
            self._branches[place.branches] = tuple([self._short(name, Counter()) for name in place.branches])
        cleaned = self._branches[place.branches]
        if cleaned == place.branches:
            return place
        return replace(place, branch=self._short(place.branch, Counter()), branches=cleaned)

    def _hunks(self, text: str, found: Counter[str]) -> str:
        """Hunks, of which a merge repeats those that it brought: the last few thousand are remembered."""
        if text not in self._recent:
            if len(self._recent) >= RECENT:
                self._recent.clear()
            counted: Counter[str] = Counter()
            self._recent[text] = self.text(text, counted), counted
        cleaned, counted = self._recent[text]
        found.update(counted)
        return cleaned

    def _strange(self, path: str) -> bool:
        return self._short(path, Counter()) != path

    def _short(self, path: str, found: Counter[str]) -> str:
        if path not in self._known:
            counted: Counter[str] = Counter()
            self._known[path] = self.text(path, counted), counted
        cleaned, counted = self._known[path]
        found.update(counted)
        return cleaned


class Kinds:
    """The kind of every path that was asked for, by the rules and by what the repository says of its own files."""

    def __init__(self, attributes: Attributes | None) -> None:
        self._attributes = attributes
        self.known: dict[str, Kind] = {}

    def learn(self, paths: Iterable[str]) -> None:
        """Look at many paths at once; git is asked once for them all."""
        new = dict.fromkeys(path for path in paths if path not in self.known)
        said = self._attributes.of(new) if self._attributes and new else {}
        self.known.update((path, kind_of(path, said.get(path))) for path in new)

    def __call__(self, path: str) -> Kind:
        if path not in self.known:
            self.learn([path])
        return self.known[path]


def sizes_of(folder: Path) -> dict[str, int]:
    """How many bytes the parts of a store take: its folders by their names, and the ``files`` beside them."""
    sizes = Counter({"files": 0})
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a journal of the database, a temporary
            if path.is_file():
                parts = path.relative_to(folder).parts
                sizes[parts[0] if len(parts) > 1 else "files"] += path.stat().st_size
    return dict(sizes)


def write_manifest(store: Store) -> None:
    """``manifest.json``: what the store holds, and what of the history each stage did not use, and why."""
    secrets = store.redactions()
    by_rule: Counter[str] = Counter()
    for rules in secrets.values():
        by_rule.update(rules)
    runs = store.last_runs()
    write_json(
        store.folder / "manifest.json",
        {
            "repo": store.fact("repo"),
            "commits": store.count(),
            "vanished": store.vanished(),
            "partial": store.partial(),
            "repeated_patches": store.repeated(),
            "files_by_kind": dict(sorted(Counter(store.paths().values()).items())),
            "secrets": {"by_rule": dict(by_rule.most_common()), "by_commit": secrets},
            "left_out": {
                "index": store.left_out(),
                "tokens": runs.get("tokenize", {}).get("left_out", {}),
                "training": runs.get("train", {}).get("left_out", {}),
            },
        },
    )


def keep_newest(folder: Path, keep: set[str]) -> None:
    """Remove the folders in ``folder`` but those named."""
    for old in folder.iterdir():
        if old.is_dir() and old.name not in keep:
            shutil.rmtree(old, ignore_errors=True)
