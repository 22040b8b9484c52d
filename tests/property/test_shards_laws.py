"""However a history is dealt out to several stores, all of them together answer as one store of it does."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histories import LetterModel, name_of, remember, told
from treering.pipeline.index import index_vectors
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.lexical import asked_words
from treering.search.shards import Shards
from treering.store import Store
from treering.types import Commit

WORDS = ("bridge", "dispute", "gate", "ledger", "oracle", "receipts", "settle", "write_ledger", "gateBridge")
STORES = 3

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

messages = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12)
queries = st.lists(st.sampled_from((*WORDS, "absent")), min_size=1, max_size=5).map(" ".join)
dealt = st.lists(st.integers(0, STORES - 1), min_size=12, max_size=12)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Store(tmp_path / str(number))) for number in range(STORES + 1)]


def fill(store: Store, commits: list[Commit], model: LetterModel | None) -> None:
    """Let a store hold these commits and no others."""
    with store.transaction():
        for table in ("postings", "vectors", "documents", "changes", "commits", "paths", "facts"):
            store.db.execute(f"DELETE FROM {table}")
        store._forget()
    if commits:
        remember(store, commits)
        if model:
            with store.writing("a test"):
                index_vectors(store, lambda: model, Reporter())


@quick
@given(messages, dealt, queries, st.booleans())
def test_many_stores_answer_as_one_store_of_all_their_commits(
    stores: list[Store], said: list[str], dealt: list[int], query: str, by_meaning: bool
) -> None:
    # Each message is another one: that one of many is said too often to say anything is known by repository.
    letters = "abcdefghijkl"
    commits = [told(number, f"{text} q{letters[number - 1]}q") for number, text in enumerate(said, start=1)]
    model = LetterModel() if by_meaning else None
    whole, *parts = stores
    fill(whole, commits, model)
    for place, part in enumerate(parts):
        fill(part, [one for one, of in zip(commits, dealt, strict=False) if of == place], model)
    one = Finder(whole, model)
    many = Finder(Shards({str(place): part for place, part in enumerate(parts)}), model)
    assert many.history.hashes == one.history.hashes
    words = asked_words(query)
    for own, other in zip(one.history.held(words), many.history.held(words), strict=True):
        assert own.anywhere.tolist() == other.anywhere.tolist()
        assert {field: (who.tolist(), often.tolist()) for field, (who, often) in own.fields.items()} == {
            field: (who.tolist(), often.tolist()) for field, (who, often) in other.fields.items()
        }
    asked, answered = one.ask(query), many.ask(query)
    assert answered.numbers.tolist() == asked.numbers.tolist()
    assert answered.scores.tolist() == asked.scores.tolist()
    hits = many.search(query, limit=len(commits))
    assert [hit.commit_hash for hit in hits] == [hit.commit_hash for hit in one.search(query, limit=len(commits))]
    assert all(hit.repository == str(dealt[int(hit.commit_hash, 16) - 1]) for hit in hits)
    assert all(many.search(name_of(number), limit=1) for number in range(1, len(commits) + 1))
