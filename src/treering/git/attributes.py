"""The linguist attributes that a repository gives its paths, read as data from the newest commit's ``.gitattributes``.

git reads them itself, out of an index in the shadow: nothing is checked out, and no attribute does anything there.
"""

import hashlib
from collections.abc import Iterable

from treering.git.shadow import GitFailed, Shadow

LINGUIST = ("linguist-generated", "linguist-vendored", "linguist-documentation")


class Attributes:
    """What one commit's ``.gitattributes`` say of paths, whether it has them or not."""

    def __init__(self, shadow: Shadow, tip: str) -> None:
        self._shadow = shadow
        self._tip = tip
        self._ready: bool | None = None
        self._fingerprint = ""

    def of(self, paths: Iterable[str]) -> dict[str, dict[str, bool]]:
        """For each path that has some, its attributes of :data:`LINGUIST` that are set (True) or unset (False)."""
        # One path that leaves the repository, and git refuses the whole question.
        inside = (path for path in paths if not {"", ".", ".."}.intersection(path.split("/")) and "\0" not in path)
        asked = "".join(f"{path}\0" for path in inside)
        if not asked or not self._open():
            return {}
        try:
            answer = self._shadow.run("check-attr", "--cached", "--stdin", "-z", *LINGUIST, stdin=asked.encode())
        except GitFailed:  # a path that git takes for no path
            return {}
        fields = answer.decode("utf-8", "replace").split("\0")
        found: dict[str, dict[str, bool]] = {}
        for path, name, value in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
            if value != "unspecified":
                found.setdefault(path, {})[name] = value not in ("unset", "false")
        return found

    @property
    def fingerprint(self) -> str:
        """Decided by the files that the attributes are in."""
        self._open()
        return self._fingerprint

    def _open(self) -> bool:
        """Make the index, the first time; only if there are attributes at all."""
        if self._ready is None:
            try:
                listed = self._shadow.run("ls-tree", "-r", "-z", self._tip).split(b"\0")
                files = b"\0".join(
                    entry for entry in listed if entry.endswith((b"\t.gitattributes", b"/.gitattributes"))
                )
                self._fingerprint = hashlib.sha256(files).hexdigest()[:16]
                self._ready = bool(files)
                if self._ready:
                    self._shadow.run("read-tree", self._tip)
            except GitFailed:  # trees are missing: nobody knows
                self._ready = False
        return self._ready
