"""What the stages share."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from treering.config import Settings
from treering.git.reader import Caps

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def fingerprint_of(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def caps_of(settings: Settings) -> Caps:
    return Caps(settings.scrape.patch_file_bytes, settings.scrape.patch_commit_bytes)
