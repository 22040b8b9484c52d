"""Several legs made one, what a commit is found by, and a query that is never anything but text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from histories import LetterModel, added, name_of, remember, told
from treering.errors import UsageError
from treering.pipeline.index import index_vectors
from treering.report import Reporter
from treering.search import commits as search
from treering.search import files
from treering.search.commits import Finder
from treering.search.files import fitted
from treering.search.fusion import LEARNED, Legs, Weights, fused, z_scores
from treering.search.history import EMPTY_FROM
from treering.search.lexical import LONGEST_QUERY, MESSAGE, STOP_WORDS, Lexical, Scope, asked_words
from treering.search.reasons import HUNK_LINES, best_hunk
from treering.store import Store
from treering.types import Commit, FilePatch, Filters

MESSAGES = (
    "Build a bridge and a gate",
    "Settle the dispute not in the ledger",
    "Write near the message of the oracle",
    "Count receipts",
)
"""Commit 1 to 4 of the store below."""

Remembered = Callable[..., Finder]


@pytest.fixture
def finder_of(tmp_path: Path) -> Iterator[Remembered]:
    """Opens a history that is told outright."""
    opened: list[Store] = []

    def remembered(
        commits: Sequence[Commit], merged_by: dict[int, int] | None = None, weights: Weights | None = None,
        model: LetterModel | None = None,
    ) -> Finder:  # fmt: skip
        store = Store(tmp_path / f"store {len(opened)}").__enter__()
        opened.append(store)
        remember(store, commits, merged_by)
        if model:
            with store.writing("a test"):
                index_vectors(store, lambda: model, Reporter())
        return Finder(store, model, weights or LEARNED)

    yield remembered
    for store in opened:
        store.__exit__(None, None, None)


@pytest.fixture
def four(finder_of: Remembered) -> Finder:
    return finder_of([told(number, message) for number, message in enumerate(MESSAGES, start=1)])


def found(finder: Finder, query: str, *, at: str = "", **filters: bool) -> list[int]:
    """The numbers of the commits that answer, best first."""
    hits = finder.search(query, limit=100, filters=Filters(**filters), at=at)  # type: ignore[arg-type]  # one is a bool
    return [int(hit.commit_hash, 16) for hit in hits]


def scores(finder: Finder, query: str, field: int = MESSAGE) -> dict[int, float]:
    """Commit to its BM25 score in one field."""
    leg = Lexical(Scope(finder.history, finder.history.everything), asked_words(query))
    return {number: float(score) for number, score in enumerate(leg.bm25({field: 1.0}), start=1) if score}


# fusion ----------------------------------------------------------------------------------------------------------


def test_z_scores_have_mean_zero_and_deviation_one() -> None:
    made = z_scores(np.array([1.0, 2.0, 3.0, 10.0]))
    assert made.mean() == pytest.approx(0)
    assert made.std() == pytest.approx(1)
    assert list(made) == sorted(made)


def test_equal_scores_say_nothing() -> None:
    assert z_scores(np.array([3.0, 3.0, 3.0])).tolist() == [0, 0, 0]


def test_one_score_says_nothing() -> None:
    assert z_scores(np.array([3.0])).tolist() == [0]


def test_no_scores_are_no_scores() -> None:
    assert z_scores(np.array([])).tolist() == []


def test_the_scale_of_a_leg_does_not_matter() -> None:
    leg = np.array([0.0, 2.0, 7.0])
    assert z_scores(1000 * leg + 5) == pytest.approx(z_scores(leg))


def test_a_commit_whose_message_says_nothing_is_raised_among_those_of_its_repository_alone() -> None:
    random = np.random.default_rng(7)
    many = 40
    repository = np.arange(many) % 3
    silent = (random.random(many) < 0.4) & (repository > 0)
    drawn = [random.normal(repository, 1 + repository) for _ in range(8)]  # elsewhere other scores are usual
    legs = Legs(
        numbers=np.arange(many), text=drawn[0], own=drawn[1], message=drawn[2], code=drawn[3], coverage=drawn[4],
        literal=drawn[5], diff=drawn[6], silent=silent, meant=drawn[7], share=0.0, repository=repository,
        own_share=np.full(many, 0.3),
    )  # fmt: skip
    scores = fused(legs, LEARNED)
    assert (scores > fused(replace(legs, silent=np.zeros(many, bool)), LEARNED))[silent].any()
    for own in (np.flatnonzero(repository == place) for place in range(3)):
        parts = {one.name: getattr(legs, one.name)[own] for one in fields(Legs) if one.name != "share"}
        assert scores[own] == pytest.approx(fused(replace(legs, **parts), LEARNED))


def test_with_no_weight_the_dense_leg_has_no_say(finder_of: Remembered) -> None:
    commits = [told(number, message) for number, message in enumerate(MESSAGES, start=1)]
    weights = replace(LEARNED, dense=0)
    answers = [
        finder_of(commits, weights=weights, model=LetterModel(seed)).ask("settle the dispute near a bridge")
        for seed in range(3)
    ]
    for other in answers[1:]:
        assert other.numbers.tolist() == answers[0].numbers.tolist()
        assert other.scores == pytest.approx(answers[0].scores)


def test_with_all_the_weight_the_dense_leg_decides(finder_of: Remembered) -> None:
    commits = [told(number, message) for number, message in enumerate(MESSAGES, start=1)]
    finder = finder_of(commits, weights=replace(LEARNED, dense=1000, code=0), model=LetterModel())
    asked = finder.ask("bridging oracles, settling disputes")
    nearness = asked.cosines["message"][asked.numbers]
    assert nearness.tolist() == sorted(nearness, reverse=True)
    assert len(nearness) == len(commits)


# a query is text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "answers"),
    [
        ("bridge", {1}),
        ("BRIDGE", {1}),
        ('"bridge', {1}),
        ("bridge*", {1}),
        ("^bridge", {1}),
        ("-bridge", {1}),
        ("NOT bridge", {1}),
        ("NOT", {2}),
        ("bridge AND oracle", {1, 3}),
        ("NEAR(bridge oracle, 9)", {1, 3}),
        ("message : bridge", {1, 3}),
        ("{message paths}: bridge", {1, 3}),
        ("bridge + gate", {1}),
        ("(bridge", {1}),
        ("bridge'); DROP TABLE postings; --", {1}),
        ("bridge\0oracle", {1, 3}),
        ("bridge~", {1}),
        ("OR", set()),
        ("\N{BRIDGE AT NIGHT}", set()),
        ('"" ()', set()),
        ("~", set()),
        ("", set()),
    ],
)
def test_the_search_engines_syntax_in_a_query_is_text(four: Finder, query: str, answers: set[int]) -> None:
    assert set(found(four, query)) == answers


def test_a_query_of_a_thousand_words_is_answered(four: Finder) -> None:
    query = "bridge " + " ".join(f"word{number}" for number in range(1000, 2000))
    assert len(asked_words(query)) == LONGEST_QUERY
    assert found(four, query) == [1]


def test_words_that_say_nothing_of_a_subject_are_not_asked_unless_there_are_no_others() -> None:
    assert asked_words("which of these was the bridge") == ["bridge", "bridg~"]
    assert asked_words("to be or not to be") == ["to", "be", "or", "not"]
    assert {"the", "why", "not"} <= STOP_WORDS


def test_a_word_that_comes_twice_is_asked_once() -> None:
    assert asked_words("gate Gate GATE") == ["gate", "gate~"]


def test_a_word_of_a_path_finds_the_commit(four: Finder) -> None:
    assert found(four, "file_2")[0] == 2


def test_a_commit_that_holds_more_of_the_query_scores_more(four: Finder) -> None:
    both = scores(four, "settle the dispute near the oracle")
    assert set(both) == {2, 3}
    assert all(score > 0 for score in both.values())
    assert scores(four, "settle the dispute")[2] > scores(four, "settle")[2]


def test_a_rare_word_is_worth_more_than_a_common_one(finder_of: Remembered) -> None:
    finder = finder_of([told(number, f"common {'rare' if number == 3 else 'usual'}") for number in range(1, 6)])
    leg = Lexical(Scope(finder.history, finder.history.everything), ["rare", "common", "absent"])
    rarity = leg.rarity()
    assert rarity["absent"] > rarity["rare"] > rarity["common"] > 0
    part = rarity["common"] / sum(rarity.values())
    assert leg.coverage() == pytest.approx([part, part, part + rarity["rare"] / sum(rarity.values()), part, part])


def test_a_word_in_another_form_finds_the_commit_but_the_word_itself_comes_first(finder_of: Remembered) -> None:
    finder = finder_of([told(1, "Expire old tokens"), told(2, "Expiring old tokens"), told(3, "Count the receipts")])
    assert found(finder, "expiring") == [2, 1]
    assert found(finder, "expire") == [1, 2]
    assert set(found(finder, "expired")) == {1, 2}


# what is answered ------------------------------------------------------------------------------------------------


def test_without_an_embedder_words_alone_answer_and_say_why(four: Finder) -> None:
    (hit,) = four.search("build the BRIDGE", limit=1)
    assert hit.commit_hash == name_of(1)
    assert hit.subject == MESSAGES[0]
    assert hit.date == "1970-01-01T00:00:01Z"
    assert hit.files == ("src/file_1.py",)
    assert hit.why == "message: build, bridge"


def test_the_reason_names_a_stem_only_where_no_word_of_the_query_is(finder_of: Remembered) -> None:
    finder = finder_of([told(1, "Disputes are settled, ledgers too", path="src/dispute_rule.py")])
    (hit,) = finder.search("settling the dispute of the ledger", limit=1)
    assert hit.why == "message: settl, disput, ledger · paths: dispute"


def test_the_reason_names_the_diff_and_the_merge_where_they_alone_have_the_word(finder_of: Remembered) -> None:
    commits = [
        told(1, "begin"),
        told(2, "fix the gate", patches=[added("src/a.py", "x = gate + 7654321")]),
        told(3, "Merge the hangar", parents=[1, 2]),
    ]
    finder = finder_of(commits, merged_by={2: 3})
    (hit,) = finder.search("gate 7654321 hangar", limit=1)
    assert hit.why == "message: gate · identifiers: gate · diff: 7654321 · text of its merge: hangar"


def test_a_hash_may_begin_without_a_digit(finder_of: Remembered) -> None:
    finder = finder_of([structs.replace(told(1, "Build a bridge"), hash="fadedab1" * 5), told(2, "Paint the defaced")])
    assert [hit.why for hit in finder.search("FADEDAB", limit=10)] == ["that hash"]
    assert [hit.subject for hit in finder.search("defaced", limit=10)] == ["Paint the defaced"]


def test_a_commit_that_nothing_speaks_for_is_no_hit(finder_of: Remembered) -> None:
    silent = [structs.replace(told(number, ""), changes=()) for number in (1, 3)]
    finder = finder_of([silent[0], told(2, "Build a bridge"), silent[1]], model=LetterModel())
    assert [(hit.subject, bool(hit.why)) for hit in finder.search("gate", limit=10)] == [("Build a bridge", True)]
    assert finder.search("gate", limit=10, at=name_of(1)) == []


def test_a_search_gives_no_more_than_its_limit(four: Finder) -> None:
    assert len(four.search("src", limit=3)) == 3
    assert len(four.search("src", limit=10)) == 4


def test_a_query_that_nothing_answers_has_no_hits(four: Finder) -> None:
    assert four.search("zeppelin", limit=10) == []


def test_a_phrase_without_a_word_is_looked_for_as_it_stands(finder_of: Remembered) -> None:
    patches = [added("a.py", "x = 1"), added("b.py", *(["y = 2"] * 30), "def f() -> int:")]
    commits = [
        told(1, "Say what comes -> in the message"),
        told(2, "begin", patches=patches, patch_id="abc"),
        told(3, "else", patches=patches, patch_id="abc"),
        told(4, "Count receipts", patches=[added("c.py", "a -= 1")]),
        told(5, "Merge -> them", parents=[4, 1]),
    ]
    finder = finder_of(commits)
    hits = finder.search('"->"', limit=10)
    assert [(hit.subject, hit.why) for hit in hits] == [
        ("else", "holds it"), ("Say what comes -> in the message", "holds it"),
    ]  # fmt: skip
    assert hits[0].hunk.endswith("+def f() -> int:")
    assert [hit.subject for hit in finder.search('"->"', limit=1)] == ["else"]
    assert [hit.subject for hit in finder.search('"->"', limit=9, at=name_of(2))] == ["begin", hits[1].subject]
    assert [hit.subject for hit in finder.search('"->" and, "():"', limit=9)] == []
    assert [hit.subject for hit in finder.search('"->", "()"', limit=9)] == ["else"]


def test_a_phrase_is_found_however_many_commits_are_newer(
    finder_of: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PHRASE_CANDIDATES", 3)
    newer = [told(number, f"Count receipts, part {number}") for number in range(3, 9)]
    finder = finder_of([told(1, "generic skeleton"), told(2, "skeleton, generic"), *newer])
    assert found(finder, '"generic skeleton"') == [1]
    assert found(finder, '"GENERIC"') == [2, 1]
    assert found(finder, '"generic skeleton"', at=name_of(1)) == [1]
    assert found(finder, '"part 7"') == [7]


def test_an_index_of_nothing_has_no_hits(finder_of: Remembered) -> None:
    finder = finder_of([])
    assert finder.search("bridge", limit=10) == []
    assert finder.search("#12", limit=10) == []
    with pytest.raises(UsageError, match="there is no commit"):
        finder.search("bridge", limit=10, at=name_of(1))


def test_of_equal_commits_the_newest_comes_first(finder_of: Remembered) -> None:
    finder = finder_of([told(number, "the same words", path="src/a.py") for number in range(1, 4)])
    assert found(finder, "same words") == [3, 2, 1]


def test_a_merge_is_found_only_on_request(finder_of: Remembered) -> None:
    finder = finder_of([told(1, "one"), told(2, "two", parents=[1]), told(3, "Merge the bridge", parents=[1, 2])])
    assert found(finder, "bridge") == []
    assert found(finder, "bridge", include_merges=True) == [3]


def test_where_all_commits_are_merges_nothing_breaks(finder_of: Remembered) -> None:
    finder = finder_of([told(3, "Merge the bridge", parents=[1, 2])])
    assert found(finder, "bridge") == []
    assert found(finder, "bridge", include_merges=True) == [3]


def test_the_text_of_a_merge_counts_for_the_commits_it_brought(finder_of: Remembered) -> None:
    commits = [
        told(1, "begin"),
        told(2, "fix it"),
        told(3, "elsewhere"),
        told(4, "Merge the zeppelin into the hangar", parents=[1, 2]),
    ]
    finder = finder_of(commits, merged_by={2: 4})
    assert found(finder, "zeppelin hangar") == [2]
    (hit,) = finder.search("zeppelin", limit=10)
    assert hit.merged_by == name_of(4)
    alone = finder.ask("zeppelin", through=~finder.history.merges, merge_texts=False)
    assert alone.numbers.tolist() == []


def test_the_text_of_a_merge_that_is_not_known_yet_does_not_count(finder_of: Remembered) -> None:
    commits = [told(1, "begin"), told(2, "fix it"), told(3, "Merge the zeppelin, for #12", parents=[1, 2])]
    finder = finder_of(commits, merged_by={2: 3})
    assert finder.search("zeppelin", limit=10, at=name_of(2)) == []
    assert [hit.commit_hash for hit in finder.search("zeppelin", limit=10, at=name_of(3))] == [name_of(2)]


def test_commits_with_the_same_patch_are_shown_once(finder_of: Remembered) -> None:
    commits = [told(number, f"bridge {number}", patch_id="abc" if number < 3 else "") for number in range(1, 5)]
    assert found(finder_of(commits), "bridge 1 2 3 4") in ([4, 3, 2], [4, 3, 1], [3, 4, 2], [3, 4, 1])


def local_changes(count: int) -> list[Commit]:
    """``count`` commits that all say the same, and some that say what others did."""
    silent = [
        told(
            number, "cli local changes", patches=[added(f"src/module_{number}.py", f"def topic_{number}():", "  pass")]
        )
        for number in range(1, count + 1)
    ]
    loud = [
        told(count + number, f"Talk about topic {chr(96 + number) * 3}", path=f"docs/{number}.md")
        for number in range(1, 12)
    ]
    zeppelin = told(
        count + 12, "cli local changes", patches=[added("src/flight.py", "def weigh_zeppelin(cargo):", "  pass")]
    )
    return [*silent, *loud, zeppelin, told(count + 13, "Say something of a zeppelin and of its weight", path="a.md")]


def test_a_message_that_many_commits_have_does_not_speak_against_what_the_diff_says(finder_of: Remembered) -> None:
    commits = local_changes(EMPTY_FROM - 1)
    finder = finder_of(commits)
    history = finder.history
    assert history.empty(history.everything).tolist() == [commit.subject == "cli local changes" for commit in commits]
    assert found(finder, "weigh the zeppelin's cargo")[0] == len(commits) - 1


def test_a_message_that_fewer_commits_have_is_a_message(finder_of: Remembered) -> None:
    finder = finder_of(local_changes(EMPTY_FROM - 2))
    assert not finder.history.empty(finder.history.everything).any()


def test_a_message_without_words_says_nothing(finder_of: Remembered) -> None:
    messages = ["... 12 !", "\N{ROCKET}" * 4, "\N{EM DASH}" * 9, "Count receipts", "чиним", "a" * 40]
    history = finder_of([told(number, message) for number, message in enumerate(messages, start=1)]).history
    assert history.empty(history.everything).tolist() == [True, True, True, False, False, False]


# files -----------------------------------------------------------------------------------------------------------


def test_the_weights_of_one_past_are_not_those_of_another_with_the_same_last_commit(
    finder_of: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "STEP", 4)
    monkeypatch.setattr(files, "ENOUGH", 1)
    topics = ("bridge", "gate", "ledger", "oracle")
    history = finder_of(
        [
            told(
                number,
                f"Mend the {topics[number % 4]}",
                parents=[max(1, number - 2)] if number > 1 else [],
                path=f"src/{topics[number % 3]}.py",
            )
            for number in range(1, 13)
        ]
    ).history
    one, other = np.zeros((2, 12), bool)
    one[[0, 1, 3, 5, 7, 9, 10, 11]] = True
    other[[0, 2, 4, 6, 8, 9, 10, 11]] = True
    alone = files.Predictor(history).weights(other)
    both = files.Predictor(history)
    assert both.weights(one).tolist() != alone.tolist()
    assert both.weights(other).tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("mend the Makefile", "Makefile"),
        ("what is in .gitignore", ".gitignore"),
        ("mend `src/market.py`", "src/market.py"),
        ("the market is slow", "src/market.py"),
        ("nothing of them", ""),
    ],
)
def test_a_file_is_named_by_a_task_that_holds_its_name(finder_of: Remembered, task: str, file: str) -> None:
    paths = ("Makefile", ".gitignore", "src/market.py", "src/b.py", "src/Dockerfile.old")
    history = finder_of([told(number, "Start", path=path) for number, path in enumerate(paths, start=1)]).history
    predictor = files.Predictor(history)
    rows = predictor.features(task, history.everything, paths)
    named = rows[:, files.FEATURES.index("named")]
    assert [path for path, one in zip(paths, named, strict=True) if one] == [file] * bool(file)


# the hunk that is shown ------------------------------------------------------------------------------------------


def test_the_hunk_that_holds_most_of_the_words_is_shown() -> None:
    patches = [added("a.py", "bridge = 1"), added("b.py", "bridge = gate"), added("c.py", "gate = 2")]
    assert best_hunk(patches, {"bridge", "gate"}) == FilePatch("b.py", "@@ -0,0 +1,1 @@\n+bridge = gate")


def test_of_several_hunks_of_a_file_the_best_is_shown_with_its_head() -> None:
    text = "@@ -1 +1 @@ def first():\n+gate\n@@ -9 +9 @@ def second():\n-bridge\n"
    assert best_hunk([FilePatch("a.py", text)], {"bridge"}) == FilePatch("a.py", "@@ -9 +9 @@ def second():\n-bridge")


def test_a_long_hunk_is_shown_around_its_first_telling_line() -> None:
    lines = [f"line_{number}" for number in range(100)]
    lines[50] = "zeppelin"
    shown = best_hunk([added("a.py", *lines)], {"zeppelin"})
    assert shown is not None
    head, *told_lines = shown.text.split("\n")
    assert head == "@@ -0,0 +1,100 @@"
    assert told_lines == [f"+{line}" for line in lines[48 : 48 + HUNK_LINES]]
    assert shown.cut == sum(len(f"+{line}\n") for line in lines) - sum(len(f"{line}\n") for line in told_lines)


def test_a_commit_without_hunks_shows_none() -> None:
    assert best_hunk([], {"bridge"}) is None


@pytest.mark.parametrize("prior", [(0.0, 8.0, 8.0, 4.0), (2.0, 10.0, 10.0, 0.0), (0.0, 0.0, 0.0, -30.0)])
def test_a_fit_from_weights_that_are_far_off_finds_what_is_best(prior: tuple[float, ...]) -> None:
    """A whole step of Newton's leads away from there for good, and every file was certain."""
    chance = np.random.default_rng(7)
    rows = chance.random((400, 3))
    touched = rows[:, 0] > 0.8
    begun = np.array(prior)
    weights = fitted(rows, touched, begun)
    design = np.column_stack([rows, np.ones(len(rows))])
    slope = design.T @ (1 / (1 + np.exp(-design @ weights)) - touched) + 3.0 * (weights - begun)
    assert np.abs(slope).max() < 1e-3
    scores = design @ weights
    assert scores[touched].mean() > scores[~touched].mean()
