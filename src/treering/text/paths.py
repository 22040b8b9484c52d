"""Paths that patterns name: what is private, what is protected. Who writes a pattern means what reads the same."""

import fnmatch
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
"""Characters that no one sees, and that some file systems pass over."""


def matching(paths: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The paths that a pattern names. One without a slash is the name of a file or a folder anywhere, one with a slash
    a path from the root; what lies in a folder that is named is named. ``*`` is any text, case does not count.
    """
    wanted = [folded(pattern).strip("/") for pattern in patterns if pattern.strip().strip("/")]

    def named(path: str) -> bool:
        parts = posixpath.normpath(folded(path)).strip("/").split("/")
        whole = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        return any(
            fnmatch.fnmatchcase(one, pattern) or fnmatch.fnmatchcase(f"/{one}", pattern)
            for pattern in wanted
            for one in ((*whole,) if "/" in pattern else (*whole, *parts))
        )

    return tuple(dict.fromkeys(path for path in paths if named(path)))


def folded(text: str) -> str:
    """The same for what reads the same: case, whether an accent is a character of its own, and characters that nobody
    sees do not count.
    """
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text)).casefold().strip()
