"""Code-aware words: the same for what is indexed and for what is asked."""

import re
from collections.abc import Iterator

_WORD = re.compile(r"[\w\u0300-\u036f]+")  # with the marks that lower case can leave apart: "İ" is "i" and a dot
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_IDENTIFIER = re.compile(r"(?<!\w)[^\W\d]\w{2,63}(?!\w)")

LONGEST = 64
"""Longer words are data (hashes, base64), not words."""


def words(text: str) -> Iterator[str]:
    """Every word in lower case; a compound one (``snake_case``, ``camelCase``, ``HTTPServer2``) and then its parts."""
    for match in _WORD.finditer(text):
        word = match[0]
        if len(word) > LONGEST:
            continue
        yield word.lower()
        parts = _parts(word)
        if parts != [word]:
            yield from (part.lower() for part in parts)


def _parts(word: str) -> list[str]:
    # Beyond ASCII the cut is made in the word's shape: an "A" for each upper-case letter, an "a" for any other.
    shape = word if word.isascii() else "".join(map(_shape, word))
    return [word[match.start() : match.end()] for match in _PARTS.finditer(shape)]


def _shape(char: str) -> str:
    return "_" if char == "_" else "0" if char.isdecimal() else "A" if char.isupper() else "a"


def identifiers(text: str) -> Iterator[str]:
    """The names in a line of code, as written."""
    yield from _IDENTIFIER.findall(text)
