"""The lexical leg: BM25 over the fields of the store's full-text index."""

from treering.store import Store
from treering.text.words import words

FIELDS = ("message", "paths", "functions", "identifiers")
WEIGHTS = (2.0, 1.0, 1.0, 1.0)
"""Twice the message: the best single-field mix over six repositories (docs/architecture.md)."""
CANDIDATES = 200
LONGEST_QUERY = 64
"""Words of a query that count; a longer one is a text, and its first words say what it is about."""


def lexical(store: Store, query: str) -> dict[int, float]:
    """Commit id to BM25 score for every commit that shares a word with the query, the best :data:`CANDIDATES`."""
    asked = list(dict.fromkeys(words(query)))[:LONGEST_QUERY]
    if not asked:
        return {}
    # Each word quoted: whatever the user typed is text, never FTS5 syntax.
    return store.matches(" OR ".join(f'"{word}"' for word in asked), WEIGHTS, CANDIDATES)
