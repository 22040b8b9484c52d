"""The linguist attributes that a repository gives its paths, read as data from the newest commit's ``.gitattributes``.

git reads them itself, out of an index in the shadow: nothing is checked out, and no attribute does anything there.
"""

from collections.abc import Iterable

from treering.git.shadow import GitFailed, Shadow

LINGUIST = ("linguist-generated", "linguist-vendored", "linguist-documentation")


class Attributes:
    """What one commit's ``.gitattributes`` say of paths, whether it has them or not."""

    def __init__(self, shadow: Shadow, tip: str) -> None:
        self._shadow = shadow
        self._tip = tip
        self._ready: bool | None = None

    def of(self, paths: Iterable[str]) -> dict[str, dict[str, bool]]:
        """For each path that has some, its attributes of :data:`LINGUIST` that are set (True) or unset (False)."""
        asked = "".join(f"{path}\0" for path in paths if path and "\0" not in path)
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

    def _open(self) -> bool:
        """Make the index, the first time; only if there are attributes at all."""
        if self._ready is None:
            try:
                listed = self._shadow.run("ls-tree", "-r", "-z", "--name-only", self._tip)
                self._ready = b".gitattributes\0" in listed
                if self._ready:
                    self._shadow.run("read-tree", self._tip)
            except GitFailed:  # trees are missing: nobody knows
                self._ready = False
        return self._ready
