"""Files at a place for other programs: a folder, or any URL that fsspec knows. Each is there whole or not at all.

Who may write there is up to the file system: credentials are what its library finds by itself, and pass through no hand
of ours.
"""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from treering.errors import MissingExtra, ServiceError, TreeringError, UsageError, needs
from treering.files import address, flush, locked, os_errors

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"})
"""Where an upload is not there before all of it is. Elsewhere a file is renamed when it is."""
_NEW = ".treering-new-"
_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Protocols whose library is an extra of ours."""


class Destination:
    """An open place. Names are relative to it, with ``/`` between their parts."""

    def __init__(self, url: str) -> None:
        with needs("export"):
            import fsspec
        self.shown = address(url)
        """The address, without a user's name or password in it."""
        protocol = url.partition("://")[0] if "://" in url else "file"
        try:
            if protocol == "file":
                self.fs, self.root = fsspec.filesystem("file"), str(Path(url.removeprefix("file://")).resolve())
            else:
                self.fs, self.root = fsspec.core.url_to_fs(url)
        except ValueError as error:
            hint = "give a folder, or an address such as s3://bucket/name"
            raise UsageError(f"{self.shown}: {error}", hint) from error
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            hint = f"pip install '.[{extra}]' in the folder of treering" if extra else "install that package"
            raise MissingExtra(f"{self.shown} needs a package that is not installed: {error}", hint) from error
        self.local = protocol == "file"
        self._whole = protocol in OBJECT_STORES
        if not self.root.strip("/"):
            raise UsageError(f"{self.shown} names no folder", "give a folder of its own")
        self.fs.invalidate_cache()

    def alone(self, who: str) -> AbstractContextManager[None]:
        """Be the one writer inside the block, where the place is on this machine. Elsewhere nobody is kept away."""
        if not self.local:
            return nullcontext()
        with os_errors(Path(self.root)):
            Path(self.root).mkdir(parents=True, exist_ok=True)
        return locked(Path(self.root) / ".lock", who)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for files that are not whole yet. What a kill left of an earlier one here is removed."""
        for left in filter(lambda name: name.startswith(_NEW), self._listed()):
            if self.local:
                shutil.rmtree(self._path(left), ignore_errors=True)
            else:
                self.remove(left)
        with TemporaryDirectory(prefix=_NEW, dir=self.root if self.local else None) as folder:
            yield Path(folder)

    def put(self, name: str, file: Path) -> None:
        """Let a file of :meth:`scratch` take the place of ``name``."""
        target = self._path(name)
        with self._named(name):
            if self.local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                flush(file)
                file.replace(target)
                flush(Path(target).parent)
            elif self._whole:
                self.fs.put_file(str(file), target)
            else:
                part = self._path(f"{_NEW}{name.replace('/', '-')}")
                self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self.fs.put_file(str(file), part)
                self.fs.mv(part, target)

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where there is none."""
        with self._named(name):
            try:
                return bytes(self.fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def names(self) -> list[str]:
        """What lies there, on the first level, but for what is hidden."""
        return [name for name in self._listed() if not name.startswith(".")]

    def files(self, folder: str) -> dict[str, int]:
        """Every file below a folder, by its name, with its bytes."""
        with self._named(folder):
            found: dict[str, Any] = self.fs.find(self._path(folder), detail=True)
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: about["size"] for path, about in found.items()}

    def remove(self, name: str) -> None:
        """Remove a file, and its folder if nothing else is in it. One that is not there is no error."""
        with self._named(name), suppress(FileNotFoundError):
            self.fs.rm_file(self._path(name))
        if self.local:
            with suppress(OSError):
                Path(self._path(name)).parent.rmdir()

    def _listed(self) -> list[str]:
        with self._named(""):
            try:
                found = self.fs.ls(self.root, detail=False)
            except FileNotFoundError:
                return []
        return sorted(one.rstrip("/").rpartition("/")[2] for one in found if one.rstrip("/") != self.root.rstrip("/"))

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}".rstrip("/")

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Whatever the file system says inside the block, as an error of ours that names the file."""
        try:
            with os_errors(Path(self._path(name))) if self.local else nullcontext():
                yield
        except TreeringError:
            raise
        except Exception as error:
            told = str(error) or type(error).__name__
            raise ServiceError(
                f"{self.shown}: {name or 'it'} cannot be read or written: {told}",
                "check the address, and the credentials that its library finds",
            ) from error
