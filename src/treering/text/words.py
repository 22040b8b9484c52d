"""Code-aware words: the same for what is indexed and for what is asked."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

_WORD = re.compile(r"[\w\u0300-\u036f]+")  # with the marks that lower case can leave apart: "İ" is "i" and a dot
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_IDENTIFIER = re.compile(r"(?<!\w)[^\W\d]\w{2,63}(?!\w)")

STEM = "~"
"""Marks a stem: no word has it."""
LONGEST = 64
"""Longer words are data (hashes, base64), not words."""


def words(text: str) -> Iterator[str]:
    """Every word in lower case; of a compound one (``snake_case``, ``camelCase``, ``HTTPServer2``) then its parts; then
    the stems of English words, marked with ``~``, so that `expire` meets `expiring`, but itself before.
    """
    for word in _WORD.findall(text):
        yield from forms(word)


def plain_words(text: str) -> Iterator[str]:
    """The same without stems."""
    return (word for word in words(text) if not word.endswith(STEM))


def vocabulary(text: str) -> set[str]:
    """All of :func:`words`, each once."""
    return set().union(*map(forms, set(_WORD.findall(text))))


def written(text: str) -> Counter[str]:
    """How often each word is there as it is written; what it is found by, :func:`forms` says."""
    return Counter(_WORD.findall(text))


@lru_cache(maxsize=1 << 16)
def forms(word: str) -> tuple[str, ...]:
    """What :func:`words` makes of one word as it is written."""
    if len(word) > LONGEST:
        return ()
    lowered = [part.lower() for part in parts(word)]
    whole = word.lower()
    stems = dict.fromkeys(f"{stem}{STEM}" for part in lowered if (stem := _stem(part)))
    return (whole, *(part for part in lowered if lowered != [whole]), *stems)


def _stem(word: str) -> str:
    """What a word and its inflections have in common; empty for what is no word of English."""
    return _stemmer().stemWord(word) if word.isascii() and word.isalpha() and len(word) > 3 else ""


@cache
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")


def parts(word: str) -> list[str]:
    """The parts of a compound word, as they are written; of a plain one itself."""
    # Beyond ASCII the cut is made in the word's shape: an "A" for each upper-case letter, an "a" for any other.
    shape = word if word.isascii() else "".join(map(_shape, word))
    return [word[match.start() : match.end()] for match in _PARTS.finditer(shape)]


def _shape(char: str) -> str:
    return "_" if char == "_" else "0" if char.isdecimal() else "A" if char.isupper() else "a"


def identifiers(text: str) -> list[str]:
    """The names in a line of code, as written."""
    return _IDENTIFIER.findall(text)
