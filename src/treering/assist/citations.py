"""Citations of an answer, ``[abc1234]``, checked while it is written: those of what was in the context stay. A hash
that stands elsewhere in it is no citation, and does not stay either if it is not of the context.
"""

import re
from collections.abc import Callable, Iterable

SHORTEST = 7
"""Digits of a hash that are a citation."""

_NAME = rf"[0-9a-fA-F]{{{SHORTEST},64}}"
_CITED = rf"[ ]?\[\s*(?:commits?\s+)?`?{_NAME}`?(?:\s*[,;]\s*`?{_NAME}`?)*\s*\]"
_NAMED = rf"(?<![\w#.-])(?=[a-fA-F]*[0-9])(?=[0-9]*[a-fA-F]){_NAME}(?![\w-]|\.\w)"
"""A hash without brackets of its own: digits and letters, and no part of a longer word or of a file's name."""
_HASHES = re.compile(f"(?P<cited>{_CITED})|{_NAMED}")
_NAMES = re.compile(_NAME)
_BEGUN = re.compile(r"[ ]?(?:\[[\s,;`0-9a-fA-Fcomits]*)?\Z|(?<![\w#.-])[0-9a-fA-F][0-9a-fA-F.]*\Z")
"""What may become one with what comes next; the blank before a citation goes with it."""
_WITHIN = re.compile(r"[\w#.-]")
UNKNOWN = "(not in the context)"


class Checked:
    """An answer that is written piece by piece. ``tell`` gets what is sure to stay: nothing before the first citation
    that holds, so that an answer without one is never shown.
    """

    def __init__(self, known: Iterable[str], tell: Callable[[str], None] = lambda _: None) -> None:
        self._known = list(dict.fromkeys(known))
        self._tell = tell
        self._waiting = ""
        self._text = ""
        self._told = 0
        self._within = False
        self.cited: list[str] = []
        """Full hashes, in the order in which they were cited first."""
        self.unsupported: list[str] = []
        """What was cited and is not in the context, as it was written."""

    def feed(self, piece: str) -> None:
        self._waiting += piece
        self._take(_BEGUN.search(self._waiting))

    def close(self) -> str:
        """The whole answer without the citations that do not hold; all of it is told, if any does."""
        self._take(None)
        return self._text

    def _take(self, begun: re.Match[str] | None) -> None:
        until = begun.start() if begun else len(self._waiting)
        sure, self._waiting = self._waiting[:until], self._waiting[until:]
        before = "_" if self._within else ""  # so that the rest of a word is none by itself
        self._text += _HASHES.sub(self._judged, before + sure)[len(before) :]
        self._within = bool(_WITHIN.match(sure[-1:])) if sure else self._within
        if self.cited and self._told < len(self._text):
            self._tell(self._text[self._told :])
            self._told = len(self._text)

    def _judged(self, found: re.Match[str]) -> str:
        kept = []
        for name in _NAMES.findall(found[0]):
            full = next((known for known in self._known if known.startswith(name.lower())), None)
            if full is None:
                self.unsupported += [name] if name not in self.unsupported else []
                continue
            if not found["cited"]:
                return found[0]
            kept.append(f"[{name.lower()}]")
            if full not in self.cited:
                self.cited.append(full)
        if not found["cited"]:
            return UNKNOWN
        blank = " " if found[0].startswith(" ") and kept else ""
        return blank + "".join(kept)
