"""Citations of an answer, ``[abc1234]``, checked while it is written: those of what was in the context stay."""

import re
from collections.abc import Callable, Iterable

SHORTEST = 7
"""Digits of a hash that are a citation."""

_NAME = rf"[0-9a-fA-F]{{{SHORTEST},64}}"
_CITED = re.compile(rf"[ ]?\[\s*(?:commits?\s+)?`?{_NAME}`?(?:\s*[,;]\s*`?{_NAME}`?)*\s*\]")
_NAMES = re.compile(_NAME)
_BEGUN = re.compile(r"[ ]?(?:\[[^\]\[\n]{0,400})?\Z")
"""What may become a citation with what comes next; the blank before it goes with it."""


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
        self._text += _CITED.sub(self._judged, sure)
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
            kept.append(f"[{name.lower()}]")
            if full not in self.cited:
                self.cited.append(full)
        blank = " " if found[0].startswith(" ") and kept else ""
        return blank + "".join(kept)
