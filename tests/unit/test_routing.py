"""Where a task goes, decided on values: hard rules first, then the model, and what it takes to learn a better one."""

import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from treering.assist.budget import Budget, ModelPrice, nano, prices_of
from treering.assist.features import FEATURES, row_of, tokens_of
from treering.assist.route import (
    ENOUGH,
    LOCAL_FROM,
    Facts,
    Model,
    chosen_model,
    cold_start,
    decided,
    learned,
    ruled,
    words_like_paths,
)
from treering.config import BudgetSettings, RouteSettings, Settings, load
from treering.errors import BudgetError, DataError, UsageError
from treering.store.ledger import Outcome, Usage, dollars
from treering.text.paths import matching

ROUTING = (Path(__file__).parents[2] / "docs" / "routing.md").read_text("utf-8")
ROOM = Facts(task_tokens=10, tokens=500, claude_window=1_000_000, local_window=8192)

# hard rules ------------------------------------------------------------------------------------------------------


def test_what_is_private_stays_whatever_the_model_says() -> None:
    facts = Facts(private=("secrets/key.py",), task_tokens=10, tokens=500, claude_window=10**6, local_window=8192)
    to, rule, why = decided(facts, {}, sure(claude=True), "model")
    assert (to, rule) == ("local", "privacy")
    assert "secrets/key.py" in why


def test_what_may_not_be_paid_stays() -> None:
    facts = Facts(refused="the ceiling of $1.00 a day is reached", tokens=500, claude_window=10**6)
    assert decided(facts, {}, sure(claude=True), "model") == ("local", "budget", facts.refused)


def test_what_claude_cannot_read_stays() -> None:
    found = ruled(Facts(task_tokens=10, tokens=2_000_000, claude_window=1_000_000, local_window=8192))
    assert found is not None
    assert found[:2] == ("local", "size")


def test_a_task_that_the_local_model_cannot_read_goes_to_claude() -> None:
    found = ruled(Facts(task_tokens=9000, tokens=9500, claude_window=1_000_000, local_window=8192))
    assert found is not None
    assert found[:2] == ("claude", "size")


def test_without_a_local_model_no_task_is_too_large_for_it() -> None:
    assert ruled(Facts(task_tokens=9000, tokens=9500, claude_window=1_000_000)) is None


def test_privacy_comes_before_money_and_money_before_size() -> None:
    everything = Facts(("a.pem",), "no key", 9000, 2_000_000, 1_000_000, 8192)
    assert ruled(everything) == ("local", "privacy", "it concerns a.pem, which is private")
    assert ruled(Facts((), "no key", 9000, 2_000_000, 1_000_000, 8192)) == ("local", "budget", "no key")


def test_where_no_rule_holds_the_model_decides() -> None:
    assert decided(ROOM, {}, sure(claude=True), "cold start")[:2] == ("claude", "cold start")
    assert decided(ROOM, {}, sure(claude=False), "model")[:2] == ("local", "model")


def test_a_probability_at_the_threshold_stays() -> None:
    even = Model(dict.fromkeys(FEATURES, 0.0), dict.fromkeys(FEATURES, 1.0), np.zeros(len(FEATURES) + 1))
    assert even.chance({}) == LOCAL_FROM
    assert decided(ROOM, {}, even, "cold start")[0] == "local"


def test_the_reason_names_what_spoke_for_the_side_that_was_taken() -> None:
    weights = np.zeros(len(FEATURES) + 1)
    weights[FEATURES.index("first file")] = 2.0
    weights[FEATURES.index("usual lines")] = -1.0
    model = Model(dict.fromkeys(FEATURES, 0.0), dict.fromkeys(FEATURES, 1.0), weights)
    assert decided(ROOM, {"first file": 1, "usual lines": 0.5}, model, "model")[2].endswith("82% (first file)")
    far = decided(ROOM, {"first file": 1, "usual lines": 3}, model, "model")
    assert far[2].endswith("27% (usual lines)")
    assert decided(ROOM, {"first file": 1, "usual lines": 99}, model, "model") == far  # nothing was learned out there


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.pem", "deploy/keys/server.pem"),
        ("*.pem", "SERVER.PEM"),
        ("secrets", "secrets/deep/inside.py"),
        ("secrets/", "a/secrets/b.py"),
        ("secrets/**", "secrets/a/b.py"),
        ("**/vault/*", "vault/a.py"),
        ("src/billing/*.py", "src/billing/tax.py"),
        ("/src/billing", "src/billing/tax.py"),
        ("src/billing", "./src/billing/tax.py"),
        ("src/bil*", "src/billing/tax.py"),
        ("vertr\u00e4ge", "docs/Vertra\u0308ge/x.md"),
    ],
)
def test_a_private_path_is_named(pattern: str, path: str) -> None:
    assert matching(["README.md", path], [pattern]) == (path,)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("secrets", "src/secretstore.py"),
        ("src/billing", "lib/src/billing/tax.py"),
        ("", "a"),
        (" / ", "a"),
        ("*.pem", "a.pem.md"),
    ],
)
def test_another_path_is_not_private(pattern: str, path: str) -> None:
    assert matching([path], [pattern]) == ()


def test_files_that_a_task_names_are_seen_in_its_words() -> None:
    named = words_like_paths("Rotate `deploy/server.pem`, then (see secrets/key.py).")
    assert matching(named, ["*.pem", "secrets"]) == ("deploy/server.pem", "secrets/key.py")


def test_a_repository_may_name_private_paths_and_not_what_costs_money(tmp_path: Path) -> None:
    (tmp_path / "treering.toml").write_text('[route]\nprivate_paths = ["secrets"]\n')
    assert load(tmp_path, {}).route == RouteSettings(private_paths=("secrets",))
    for line in ("per_day = 1000", "per_month = 1000", 'prices = "cheap.json"'):
        (tmp_path / "treering.toml").write_text(f"[budget]\n{line}\n")
        with pytest.raises(UsageError, match="not the repository's to set"):
            load(tmp_path, {})


# learning --------------------------------------------------------------------------------------------------------


def sure(*, claude: bool) -> Model:
    weights = np.zeros(len(FEATURES) + 1)
    weights[-1] = -3.0 if claude else 3.0
    return Model(dict.fromkeys(FEATURES, 0.0), dict.fromkeys(FEATURES, 1.0), weights)


def outcomes(count: int, *, upside_down: bool = False, went: str = "local") -> list[Outcome]:
    """Tasks whose first file is sure are handled, or just the others."""
    chance = np.random.default_rng(7).random(count)
    return [
        Outcome(place, went, {"first file": float(one)}, bool((one > 0.5) != upside_down))
        for place, one in enumerate(chance)
    ]


def test_a_model_learns_what_speaks_for_the_local_layer() -> None:
    model = learned([(one.features, one.good) for one in outcomes(200)])
    assert model.chance({"first file": 0.95}) > 0.8 > 0.2 > model.chance({"first file": 0.05})
    assert model.spoke({"first file": 0.95}, local=True) == ["first file"]
    assert model.spoke({"first file": 0.05}, local=False) == ["first file"]


def test_outcomes_that_contradict_the_cold_start_take_its_place() -> None:
    cold = learned([(one.features, one.good) for one in outcomes(200)])
    model, by = chosen_model(outcomes(200, upside_down=True), cold)
    assert by == "model"
    assert model.chance({"first file": 0.95}) < 0.5 < model.chance({"first file": 0.05})


def test_outcomes_that_say_the_same_change_nothing() -> None:
    cold = learned([(one.features, one.good) for one in outcomes(5000)])
    assert chosen_model(outcomes(90), cold) == (cold, "cold start")


def test_outcomes_by_chance_change_nothing() -> None:
    coins = np.random.default_rng(3).random(300) > 0.5
    chance = np.random.default_rng(5).random(300)
    told = [Outcome(0, "local", {"first file": float(a)}, bool(b)) for a, b in zip(chance, coins, strict=True)]
    even = Model(dict.fromkeys(FEATURES, 0.5), dict.fromkeys(FEATURES, 0.3), np.zeros(len(FEATURES) + 1))
    assert chosen_model(told, even) == (even, "cold start")


def test_few_outcomes_change_nothing() -> None:
    cold = sure(claude=True)
    assert chosen_model(outcomes(ENOUGH - 1), cold) == (cold, "cold start")
    assert chosen_model([], cold) == (cold, "cold start")


def test_what_went_to_claude_says_nothing_of_the_local_layer() -> None:
    cold = learned([(one.features, one.good) for one in outcomes(200)])
    assert chosen_model(outcomes(200, upside_down=True, went="claude"), cold) == (cold, "cold start")


def test_outcomes_of_one_kind_alone_teach_nothing() -> None:
    good = [Outcome(place, "local", {"first file": 0.5}, good=True) for place in range(200)]
    cold = sure(claude=True)
    assert chosen_model(good, cold) == (cold, "cold start")


def test_a_feature_that_is_not_known_speaks_for_nobody() -> None:
    cold = cold_start()
    assert row_of({}, cold.means, cold.scales) == [0.0] * len(FEATURES)
    assert row_of({"perplexity": cold.means["perplexity"]}, cold.means, cold.scales) == [0.0] * len(FEATURES)


def test_outcomes_of_features_that_are_no_more_are_read_all_the_same() -> None:
    told = [Outcome(one.at, one.went, {**one.features, "of old": 9.0}, one.good) for one in outcomes(100)]
    assert chosen_model(told, sure(claude=True))[1] == "model"


def test_the_cold_start_knows_every_feature() -> None:
    cold = cold_start()
    assert len(cold.weights) == len(FEATURES) + 1
    assert set(cold.means) == set(cold.scales) == set(FEATURES)
    assert all(scale > 0 for scale in cold.scales.values())


def test_tokens_are_rather_too_many() -> None:
    assert tokens_of("") == 0
    assert tokens_of("x = 1") == 2
    assert tokens_of("\ud800é") > 0


def test_the_docs_tell_the_weights_that_are_there() -> None:
    cold = cold_start()
    weights = dict(zip(FEATURES, cold.weights.tolist(), strict=False))
    rows = dict(re.findall(r"^\| `([^`]+)` \| .* \| ([+-]\d\.\d\d) \|$", ROUTING, re.MULTILINE))
    assert len(rows) == 9
    assert all(float(told) == round(weights[name], 2) for name, told in rows.items())
    others = set(weights) - set(rows)
    assert all(f"`{name}`" in ROUTING for name in others)
    assert max(abs(weights[name]) for name in others) < 0.115
    assert f"the constant is {cold.weights[-1]:+.2f}" in ROUTING


# prices ----------------------------------------------------------------------------------------------------------


def test_every_price_that_comes_with_treering_can_be_and_caches_cost_what_they_should() -> None:
    found = prices_of()
    assert found.source
    for name, one in found.models.items():
        assert one.input < one.output, name
        assert one.cache_read < one.input < one.cache_write_5m < one.cache_write_1h, name
        assert one.cache_write_5m == one.input * Decimal("1.25"), name
        assert one.cache_write_1h == one.input * 2, name


def test_each_kind_of_token_has_its_price() -> None:
    cost = prices_of().of("claude-opus-5-5").cost
    assert cost(Usage(10**6, 0)) == nano(4)
    assert cost(Usage(0, 10**6)) == nano(20)
    assert cost(Usage(0, 0, cache_write_5m=10**6)) == nano(5)
    assert cost(Usage(0, 0, cache_write_1h=10**6)) == nano(8)
    assert cost(Usage(0, 0, cache_read=10**6)) == nano(0.2)


def test_a_long_prompt_costs_more_for_every_token_of_the_call() -> None:
    short, long = Usage(100_000, 1000), Usage(60_000, 1000, cache_read=40_001)
    cost = prices_of().of("claude-haiku-5-5").cost
    assert cost(short) == nano(0.0105)
    assert cost(long) == nano(0.0325) + 40_001 * 50


def test_no_call_costs_more_than_its_worst_case() -> None:
    for one in prices_of().models.values():
        for size in (0, 1, 1000, 100_000, 100_001, 900_000):
            worst = one.worst(size, 500)
            for usage in (
                Usage(size, 500),
                Usage(0, 500, cache_write_1h=size),
                Usage(size // 2, 400, cache_write_5m=size - size // 2),
                Usage(0, 0, cache_read=size),
            ):
                assert one.cost(usage) <= worst


def test_the_model_that_is_asked_by_default_has_a_price() -> None:
    assert prices_of().of(Settings().assist.claude_model).window >= 200_000


def test_a_model_without_a_price_costs_no_guess() -> None:
    with pytest.raises(BudgetError, match="'gpt-9' is not known") as caught:
        prices_of().of("gpt-9")
    assert "TREERING_BUDGET_PRICES" in caught.value.hint


def test_the_file_of_prices_that_the_docs_show_can_be(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(ROUTING.partition("```json\n")[2].partition("```")[0])
    shown = prices_of(str(tmp_path / "prices.json"))
    assert all(
        shown.models[name].cost(Usage(200_000, 9)) == prices_of().of(name).cost(Usage(200_000, 9))
        for name in shown.models
    )


def test_the_docs_tell_of_which_day_the_prices_are() -> None:
    found = prices_of()
    assert {found.as_of, *(one.as_of for one in found.models.values() if one.as_of)} <= set(
        re.findall(r"\d{4}-\d\d-\d\d", ROUTING)
    )


ROW = {"input": 1, "output": 2, "cache_write_5m": 1.25, "cache_write_1h": 2, "cache_read": 0.1, "window": 1000}


def written(folder: Path, **changed: object) -> str:
    file = {"as_of": "2026-11-01", "source": "me", "models": {"mine": ROW}} | changed
    (folder / "prices.json").write_text(json.dumps(file))
    return str(folder / "prices.json")


def test_a_file_of_prices_takes_the_place_of_the_one_that_comes_with_treering(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetSettings(prices=written(tmp_path)))
    assert budget.prices.of("mine").output == 2
    with pytest.raises(BudgetError):
        budget.prices.of("claude-opus-5-5")


def test_prices_that_are_old_are_doubted(tmp_path: Path) -> None:
    found = prices_of(written(tmp_path))
    assert found.doubt("2026-12-01") == ""
    assert found.doubt("2027-12-01").startswith("the prices are 395 days old")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"as_of": "lately"}, "the day of the file, is no date"),
        ({"models": {"mine": {**ROW, "as_of": "2026-13-01"}}}, "the day of mine, is no date"),
        ({"models": {"mine": {**ROW, "input": -1}}}, "the price of input of mine is -1"),
        ({"models": {"mine": {**ROW, "output": 0}}}, "the price of output of mine is 0"),
        ({"models": {"mine": {**ROW, "cache_read": "NaN"}}}, "the price of cache_read of mine is NaN"),
        ({"models": {"mine": {**ROW, "input": "Infinity"}}}, "Infinity"),
        ({"models": {"mine": {**ROW, "input": "cheap"}}}, "is not a Prices"),
        ({"models": {"mine": {**ROW, "window": 0}}}, "the window of mine is 0"),
        ({"models": {"mine": {**ROW, "long_prompt": {**ROW, "over": 5}}}}, "is not a Prices"),
        ({"models": {"mine": {"input": 1}}}, "is not a Prices"),
        ({"models": []}, "is not a Prices"),
    ],
)
def test_a_file_of_prices_that_cannot_be_is_told(changed: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        prices_of(written(tmp_path, **changed))


def test_a_file_of_prices_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        Budget(tmp_path, BudgetSettings(prices=str(tmp_path / "none.json")))


def test_money_is_rounded_up_and_never_a_float_in_between() -> None:
    tiny = ModelPrice(
        input=Decimal("0.0000001"), output=Decimal(1), cache_write_5m=Decimal(1), cache_write_1h=Decimal(1),
        cache_read=Decimal(1), window=1,
    )  # fmt: skip
    assert tiny.cost(Usage(1, 0)) == 1
    assert nano(0.1) == 100_000_000
    assert nano(1e6) == 10**15


def test_dollars_are_written_as_people_do() -> None:
    assert dollars(0) == "$0.00"
    assert dollars(1_500_000_000) == "$1.50"
    assert dollars(1_234_567_000_000) == "$1,234.567"
    assert dollars(8_250_000) == "$0.00825"
