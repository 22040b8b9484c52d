"""The two legs made one, and a query that is never anything but text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from treering.search.commits import search_commits
from treering.search.fusion import fused, z_scores
from treering.search.lexical import lexical
from treering.store import Store
from treering.text.document import features, indexed_words
from treering.text.kinds import kind_of
from treering.types import Commit, FileChange, Placed, record_of

MESSAGES = (
    "Build a bridge and a gate",
    "Settle the dispute not in the ledger",
    "Write near the message of the oracle",
    "Count receipts",
)
"""Commit 1 to 4 of the store below."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    commits = [
        Commit(
            hash=f"{number:040x}", parents=(), author_name="Ada", author_email="ada@example.com", author_time=number,
            author_offset=0, committer_name="Ada", committer_email="ada@example.com", committer_time=number,
            committer_offset=0, subject=subject, body="", changes=(FileChange("A", f"src/file_{number}.py"),),
        )
        for number, subject in enumerate(MESSAGES, start=1)
    ]  # fmt: skip
    with Store(tmp_path / "store") as opened, opened.writing("a test"):
        opened.append(commits)
        opened.place(Placed(commit.hash, "main", ("main",)) for commit in commits)
        ids = opened.undocumented()
        told = [
            (ids[commit.hash], features(record_of(commit, Placed(commit.hash, "main", ()), ""), kind_of))
            for commit in commits
        ]
        opened.add_features((number, said, {}) for number, said in told)
        opened.index_words((number, "", indexed_words(one, ())) for number, one in told)
        yield opened


# fusion ----------------------------------------------------------------------------------------------------------


def test_z_scores_have_mean_zero_and_deviation_one() -> None:
    scores = z_scores(np.array([1.0, 2.0, 3.0, 10.0]))
    assert scores.mean() == pytest.approx(0)
    assert scores.std() == pytest.approx(1)
    assert list(scores) == sorted(scores)


def test_equal_scores_say_nothing() -> None:
    assert z_scores(np.array([3.0, 3.0, 3.0])).tolist() == [0, 0, 0]


def test_one_score_says_nothing() -> None:
    assert z_scores(np.array([3.0])).tolist() == [0]


def test_no_scores_are_no_scores() -> None:
    assert z_scores(np.array([])).tolist() == []
    assert fused(np.array([]), np.array([]), 0.5).tolist() == []


def test_the_fused_score_is_the_weighted_sum_of_both_legs() -> None:
    lexical_leg, dense_leg = np.array([0.0, 2.0]), np.array([5.0, 1.0])
    assert fused(lexical_leg, dense_leg, 0.5).tolist() == pytest.approx([-1 + 0.5, 1 - 0.5])


def test_with_no_weight_the_dense_leg_has_no_say() -> None:
    lexical_leg = np.array([0.0, 2.0, 7.0])
    assert fused(lexical_leg, np.array([9.0, 1.0, 0.0]), 0).tolist() == z_scores(lexical_leg).tolist()


def test_a_leg_that_says_nothing_leaves_the_other_alone() -> None:
    lexical_leg = np.array([0.0, 2.0, 7.0])
    assert fused(lexical_leg, np.zeros(3), 0.5).tolist() == z_scores(lexical_leg).tolist()


def test_the_scale_of_a_leg_does_not_matter() -> None:
    lexical_leg, dense_leg = np.array([0.0, 2.0, 7.0]), np.array([0.3, 0.1, 0.2])
    assert fused(1000 * lexical_leg + 5, dense_leg, 0.5) == pytest.approx(fused(lexical_leg, dense_leg, 0.5))


# a query is text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("bridge", {1}),
        ("BRIDGE", {1}),
        ('"bridge', {1}),
        ("bridge*", {1}),
        ("^bridge", {1}),
        ("-bridge", {1}),
        ("NOT bridge", {1, 2}),
        ("bridge AND oracle", {1, 3}),
        ("NEAR(bridge oracle, 9)", {1, 3}),
        ("message : bridge", {1, 3}),
        ("{message paths}: bridge", {1, 3}),
        ("bridge + gate", {1}),
        ("(bridge", {1}),
        ("bridge'); DROP TABLE words; --", {1}),
        ("bridge\0oracle", {1, 3}),
        ("OR", set()),
        ("\N{BRIDGE AT NIGHT}", set()),
        ('"" ()', set()),
        ("", set()),
    ],
)
def test_the_search_engines_syntax_in_a_query_is_text(store: Store, query: str, found: set[int]) -> None:
    assert set(lexical(store, query)) == found


def test_a_query_of_a_thousand_words_is_answered(store: Store) -> None:
    query = "bridge " + " ".join(f"word{number}" for number in range(1000, 2000))
    assert set(lexical(store, query)) == {1}


def test_a_word_of_a_path_finds_the_commit(store: Store) -> None:
    assert set(lexical(store, "file_2")) >= {2}
    assert max(lexical(store, "file_2").items(), key=lambda pair: pair[1])[0] == 2


def test_a_commit_that_holds_more_of_the_query_scores_more(store: Store) -> None:
    scores = lexical(store, "settle the dispute near the oracle")
    assert set(scores) == {2, 3}
    assert all(score > 0 for score in scores.values())
    assert lexical(store, "settle the dispute")[2] > lexical(store, "settle")[2]


def test_without_an_embedder_words_alone_answer_and_say_why(store: Store) -> None:
    (hit,) = search_commits(store, "build the BRIDGE", limit=1, embedder=None)
    assert hit.commit_hash == f"{1:040x}"
    assert hit.subject == MESSAGES[0]
    assert hit.date == "1970-01-01T00:00:01Z"
    assert hit.files == ("src/file_1.py",)
    assert hit.why == "message: build, bridge"


def test_a_search_gives_no_more_than_its_limit(store: Store) -> None:
    assert len(search_commits(store, "src", limit=3, embedder=None)) == 3
    assert len(search_commits(store, "src", limit=10, embedder=None)) == 4


def test_a_query_that_nothing_answers_has_no_hits(store: Store) -> None:
    assert search_commits(store, "zeppelin", limit=10, embedder=None) == []
