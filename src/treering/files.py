"""Whole files: replaced through a temporary name, JSON lines read with their numbers."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar

import msgspec

from treering.errors import DataError, DiskFull, StoreBusy, StoreError

T = TypeVar("T")


@contextmanager
def os_errors(what: Path) -> Iterator[None]:
    """Name the file and the way out when the system refuses a write inside the block."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk is full: {what} was not written", "free some space and run it again") from error
        raise StoreError(f"cannot write {what}: {error.strerror or error}", "choose another place") from error


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write a file that appears whole or not at all: a temporary beside it, flushed, then renamed. Who may read it
    follows from ``mode``, or else from the user's umask.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)  # mkstemp makes private files
            os.umask(mask)
            temporary.chmod(0o666 & ~mask if mode is None else mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def swap(new: Path, folder: Path, old: Path) -> None:
    """Let a folder take the place of another one, or of none. Killed in between, that one is there as ``old``."""
    with os_errors(folder):
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def as_text(name: str) -> str:
    """A file's name as text that can be stored and shown: bytes that are no UTF-8 are told as such."""
    return os.fsencode(name).decode("utf-8", "replace")


def address(url: str) -> str:
    """An address without what may be secret in it: who asks, and a query. Any other text is as it was."""
    return re.sub(r"(?<=//)[^/@]*@", "", url.partition("?")[0]) if "://" in url else url


def flush(path: Path) -> None:
    """See that a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, who: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock that ``path`` is inside the block. Waits up to ``patience`` seconds for another, then raises
    :class:`StoreBusy` naming it. A killed holder's lock is gone with it.
    """
    with os_errors(path):
        # A link would let a repository choose what is truncated.
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+")
    with lock:
        _take(lock, path, patience)
        with os_errors(path):
            lock.seek(0)
            lock.truncate(0)
            lock.write(f"{who} (process {os.getpid()}, since {time.strftime('%H:%M:%S')})\n")
            lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def holder(path: Path) -> str:
    """Who holds the lock that ``path`` is; empty where nobody does."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return path.read_text().strip() or "another process"
    except OSError:
        pass
    return ""


def _take(lock: TextIO, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise StoreBusy(
                    f"{path.parent} is in use by {holder}", "wait for it, or stop it, and run it again"
                ) from None
            time.sleep(0.05)


def write_json(path: Path, value: object) -> None:
    """``value`` as indented JSON, replacing ``path`` whole."""
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[object], None]]:
    """A function that writes one JSON object a line to a file that appears when the block ends."""
    encoder = msgspec.json.Encoder()
    with replacing(path) as file:
        yield lambda value: file.writelines((encoder.encode(value), b"\n"))


def write_json_lines(path: Path, values: Iterable[object]) -> None:
    """One JSON object a line. ``values`` is streamed."""
    with json_lines(path) as write:
        for value in values:
            write(value)


def write_json_array(path: Path, values: Iterable[object], *, indented: bool = False) -> int:
    """A JSON array, an element a line or ``indented``; streamed. Returns how many."""
    count = 0
    encoder = msgspec.json.Encoder()
    with replacing(path) as file:
        file.write(b"[")
        for value in values:
            element = encoder.encode(value)
            file.write((b",\n" if count else b"\n") + (msgspec.json.format(element, indent=2) if indented else element))
            count += 1
        file.write(b"\n]\n")
    return count


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file the user named as input; errors name it."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    with file:
        yield file


def read_json(path: Path, kind: type[T]) -> T:
    """The file as ``kind``, or a :class:`DataError` that says where it breaks."""
    with reading(path) as file:
        content = file.read()
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a {kind.__name__}: {error}", "make the file again") from error


def read_json_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Stream the lines as ``kind``; a torn or empty line is an error with its number."""
    decoder = msgspec.json.Decoder(kind)
    count = 0
    with reading(path) as file:
        for count, line in enumerate(file, start=1):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                torn = "is empty" if not line.strip() else f"is torn or no {kind.__name__}: {error}"
                raise DataError(f"{path}:{count} {torn}", "make the file again, or delete that line") from error
    if not count:
        raise DataError(f"{path} is empty", "make the file again")
