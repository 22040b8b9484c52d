"""Who may see what: tokens, and of each the names of the repositories that it sees. Tokens are read here and nowhere
else, and no error tells of one.
"""

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass

from treering.config import ServeSettings
from treering.errors import UsageError

HINT = "set TREERING_SERVE_TOKENS like TOKEN=name,other-*;TOKEN=* (docs/serving.md)"


@dataclass(frozen=True, slots=True)
class Sight:
    """The repositories that somebody sees: whose names fit one of these, which may hold ``*``."""

    names: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return "*" in self.names

    def sees(self, name: str) -> bool:
        return any(re.fullmatch(".*".join(map(re.escape, one.split("*"))), name, re.DOTALL) for one in self.names)


EVERYTHING = Sight(("*",))


class Tokens:
    """What must be borne by who asks. None at all asks nothing of anyone, who then sees everything.

    Raises :class:`UsageError` for a token that is weak or given twice, and for what is no list of tokens.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._sights: list[tuple[bytes, Sight]] = []
        if settings.token:
            self._add(settings.token, EVERYTHING, "TREERING_SERVE_TOKEN")
        for token, sight in _of_each(settings.tokens):
            self._add(token, sight, "each of TREERING_SERVE_TOKENS")

    def _add(self, token: str, sight: Sight, named: str) -> None:
        if len(token) < 16 or not token.isascii() or " " in token:
            raise UsageError("the token is too weak", f"give {named} 16 or more ASCII characters, no blanks")
        if any(token.encode() == other for other, _ in self._sights):
            raise UsageError("a token is given twice", "give it once, with all names that it sees")
        self._sights.append((token.encode(), sight))

    def __bool__(self) -> bool:
        return bool(self._sights)

    @property
    def sights(self) -> set[Sight]:
        return {sight for _, sight in self._sights}

    def sight(self, token: bytes) -> Sight | None:
        """What a token sees; None if it is none of ours. It takes as long whichever it is."""
        found = None
        for ours, sight in self._sights:
            if hmac.compare_digest(token, ours):
                found = sight
        return found


def _of_each(text: str) -> Iterator[tuple[str, Sight]]:
    if not text:
        return
    for number, one in enumerate(text.rstrip("; ").split(";"), start=1):
        token, _, listed = one.rpartition("=")
        names = tuple(sorted({name.strip() for name in listed.split(",")} - {""}))
        if not token.strip() or not names:
            raise UsageError(f"entry {number} of the tokens names no token, or no repository", HINT)
        yield token.strip(), EVERYTHING if "*" in names else Sight(names)
