"""Code-aware words: the same for what is indexed and for what is asked."""

import re
from collections.abc import Iterator

_WORD = re.compile(r"\w+")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\dA-Za-z_]+")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{2,63}")

LONGEST = 64
"""Longer words are data (hashes, base64), not words."""


def words(text: str) -> Iterator[str]:
    """Every word in lower case; a compound one (``snake_case``, ``camelCase``, ``HTTPServer2``) and then its parts."""
    for match in _WORD.finditer(text):
        word = match[0]
        if len(word) > LONGEST:
            continue
        yield word.lower()
        parts = _PARTS.findall(word)
        if len(parts) > 1:
            yield from (part.lower() for part in parts)


def identifiers(text: str) -> Iterator[str]:
    """The names in a line of code, as written."""
    yield from _IDENTIFIER.findall(text)
