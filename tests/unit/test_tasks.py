"""The measures of the tasks, the completion without a model, and what a model says of texts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from treering.lm.completion import END, SOURCES, Completer, Followers, Position, fitted, joined, keys, mixed
from treering.lm.scorer import Scorer
from treering.lm.tasks import bleu, judged, rouge_l
from treering.lm.yardsticks import BASE_SHOWN, TUNED_SHOWN, Told, ngram_bits, part_row, token_bits, xz_bits

WORDS = some.lists(some.sampled_from(["fix", "the", "ledger", "of", "oracle"]), max_size=6)


# measures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [rouge_l, bleu])
def test_what_is_right_scores_one_and_what_has_no_word_of_it_none(measure: Any) -> None:
    assert measure("Fix the ledger of the oracle", "fix the ledger of the oracle") == pytest.approx(1)
    assert measure("Bump version", "fix the ledger") == 0
    assert measure("", "fix") == measure("fix", "") == 0


def test_rouge_counts_the_longest_common_subsequence() -> None:
    assert rouge_l("fix a ledger quickly", "fix the ledger") == pytest.approx(2 * 2 / (4 + 3))


def test_bleu_punishes_what_is_too_short_and_words_out_of_order() -> None:
    truth = "fix the ledger of the oracle"
    assert bleu("fix the", truth) < bleu("fix the ledger of", truth) < 1
    assert bleu("oracle the of ledger the fix", truth) < bleu("fix the ledger of oracle", truth)


@given(WORDS, WORDS)
def test_the_measures_lie_between_nothing_and_one(one: list[str], other: list[str]) -> None:
    for measure in (rouge_l, bleu):
        assert 0 <= measure(" ".join(one), " ".join(other)) <= 1 + 1e-9


def test_a_task_is_won_only_where_the_whole_interval_lies_above_the_best_of_the_others() -> None:
    def row(model: Sequence[float]) -> Any:
        ways = {"weak": [0.0] * 20, "strong": [0.5, 0.3] * 10, "model": model}
        return judged("message", "ROUGE-L", ways, [1.0] * 20, model="model", neural=("model",), seed=7)

    better = row([0.7, 0.5] * 10)
    assert (better.baseline, better.won) == ("strong", True)
    assert better.difference == (0.2, 0.2, 0.2)
    assert not row([1.0] * 8 + [0.0] * 12).won
    few = judged("m", "r", {"a": [0.0] * 4, "b": [1.0] * 4}, [1.0] * 4, model="b", neural=("b",), seed=7)
    assert not few.won


# completion ------------------------------------------------------------------------------------------------------


def told(*messages: str) -> Completer:
    completer = Completer()
    for message in messages:
        completer.read(message)
    return completer


def test_every_source_gives_all_words_together_a_chance_of_one() -> None:
    draft = told("Fix the ledger", "Fix the oracle", "Add a rule").draft(["Fix the rule"], ["src", "ledger.py"])
    for before in ([], ["Fix"], ["Fix", "the"], ["never", "seen"]):
        assert draft.chances(before).sum(axis=1) == pytest.approx(np.ones(len(SOURCES)))


def test_the_history_goes_on_as_it_did_and_the_change_names_its_own() -> None:
    draft = told("Fix the ledger", "Fix the ledger again", "Add the rule").draft(["Drop the bridge"], ["quota.py"])
    history, near, _, own = draft.chances(["Fix", "the"])
    assert draft.words[int(history.argmax())] == "ledger"
    assert draft.words[int(near.argmax())] == "bridge"
    assert draft.words[int(own.argmax())] == "quota.py"
    assert draft.place("nowhere") == -1
    assert draft.words[0] == END


@given(some.lists(WORDS, max_size=5), WORDS)
def test_chances_are_no_less_than_none_and_sum_to_one(read: list[list[str]], before: list[str]) -> None:
    followers = Followers()
    for words in read:
        followers.read(words)
    number = {word: place for place, word in enumerate([END, "fix", "the", "ledger", "of", "oracle"])}
    chances = followers.chances(before, number)
    assert (chances >= 0).all()
    assert chances.sum() == pytest.approx(1)


def test_the_source_that_is_right_gets_the_weight_apart_for_the_first_word() -> None:
    first = Position(True, np.array([[0.9, 0.1], [0.1, 0.9]]), 0)
    other = Position(False, np.array([[0.9, 0.1], [0.1, 0.9]]), 1)
    weights = fitted([first] * 9 + [other] * 9, 2)
    assert weights["first"][0] > 0.9 > 0.1 > weights["other"][0]
    assert mixed(first.chances, weights, first=True)[0] > 0.8
    assert fitted([], 2) == {"first": (0.5, 0.5), "other": (0.5, 0.5)}
    assert fitted([Position(True, first.chances, -1)], 2)["first"] == (0.5, 0.5)


def test_words_that_begin_alike_share_the_models_chance_as_the_others_say() -> None:
    shared = joined(np.array([0.6, 0.4]), np.array([0, 0, 1]), np.array([0.3, 0.1, 0.6]))
    assert shared == pytest.approx([0.45, 0.15, 0.4])


@pytest.mark.parametrize(
    ("wanted", "taken"), [("ledger", 1), ("lemon", 4), ("oracle", 2), ("led", 4), ("unknown", 8), ("ledgers", 8)]
)
def test_a_word_costs_its_letters_until_it_is_shown_and_a_key_to_take_it(wanted: str, taken: int) -> None:
    words = [END, "ledger", "lemon", "oracle", "ledgers"]
    assert keys(words, np.array([0.5, 0.2, 0.15, 0.1, 0.05]), wanted) == taken


# yardsticks ------------------------------------------------------------------------------------------------------


def test_what_was_read_before_costs_less_by_either_yardstick() -> None:
    text = b"<MESSAGE> settle the dispute in the ledger of the market\n"
    document = Told(text, {"all": (0, len(text)), "message": (9, len(text) - 1)})

    def ngram(history: bytes) -> float:
        return float(ngram_bits(history, [document])[0].sum())

    def xz(history: bytes) -> float:
        return float(xz_bits(history, [document])["all"][0])

    assert ngram(text * 3) < 0.5 * ngram(b"")
    assert xz(text * 3) < 0.5 * xz(b"")
    told = xz_bits(b"", [document, Told(b"more", {"all": (0, 4)})])
    assert 0 < told["message"][0] < told["all"][0]
    assert told["message"][1] == 0 < told["all"][1]


def test_a_token_is_of_the_part_that_its_last_byte_is_in() -> None:
    nats = np.log(2) * np.array([1.0, 2.0, 4.0])
    assert token_bits(nats, [3, 6, 9], (0, 3)) == pytest.approx(1)
    assert token_bits(nats, [3, 6, 9], (3, 9)) == pytest.approx(6)
    assert token_bits(nats, [3, 6, 9], (4, 8)) == pytest.approx(2)


def test_only_the_documents_that_have_a_part_count_for_it() -> None:
    documents = [Told(b"12345678", {"all": (0, 8), "paths": (4, 8)}), Told(b"1234", {"all": (0, 4)})]
    costs = {"tuned": np.array([4.0, 0.0]), "base": np.array([8.0, 0.0])}
    row = part_row("paths", costs, documents, 7)
    assert row is not None
    assert (row.documents, row.bytes, row.bits_per_byte) == (1, 4, {"tuned": 1.0, "base": 2.0})
    assert row.differences == {"base": (-1.0, -1.0, -1.0)}
    assert row.shown == {}
    assert part_row("message", costs, documents, 7) is None
    shown = {TUNED_SHOWN: np.array([2.0, 0.0]), BASE_SHOWN: np.array([6.0, 0.0]), "ngram": np.array([10.0, 0.0])}
    row = part_row("paths", costs | shown, documents, 7)
    assert row is not None
    assert row.differences.keys() == {"base", "ngram"}
    assert row.shown == {"ngram": (-2.0, -2.0, -2.0), BASE_SHOWN: (-1.0, -1.0, -1.0)}


# a model asked ---------------------------------------------------------------------------------------------------


class Letters:
    """Every character is a token; the first is the end of a text."""

    letters = "\0\n abcdefgh"
    eos_id = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self.letters.index(char) for char in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.letters[number] for number in ids)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """A small model of nothing: what it says is arbitrary, and must agree with itself."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=len(Letters.letters), n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return Scorer(GPT2LMHeadModel(config), Letters(), 64)


def test_the_chance_of_a_text_is_that_of_its_tokens_one_after_the_other(scorer: Scorer) -> None:
    texts = [" ab", " abc", " d"]
    whole = scorer.chances("gfe", texts)
    alone = [float(scorer.chances("gfe", [text])[0]) for text in texts]
    assert whole == pytest.approx(alone, abs=1e-4)
    step = float(scorer.chances("gfe ab", ["c"])[0])
    assert whole[1] - whole[0] == pytest.approx(step, abs=1e-4)
    assert sum(math.exp(one) for one in scorer.chances("gfe", list(Letters.letters))) == pytest.approx(1, abs=1e-4)


def test_first_tokens_are_told_behind_each_word_in_one_reading(scorer: Scorer) -> None:
    tokens = np.arange(len(Letters.letters))
    told = scorer.first_tokens("gfe", ["ab", "c"], tokens)
    assert told.shape == (3, len(tokens))
    assert told.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-4)
    for place, context in enumerate(["gfe", "gfe ab", "gfe ab c"]):
        one_by_one = np.exp(scorer.chances(context, list(Letters.letters)))
        assert told[place] == pytest.approx(one_by_one, abs=1e-4)


def test_texts_are_written_side_by_side_as_they_are_alone(scorer: Scorer) -> None:
    prompts = ["a", "abcdefgh abcdefgh", "gf e", *"abcdefgh"]
    assert scorer.written(prompts, 6) == [scorer.written([prompt], 6)[0] for prompt in prompts]


def test_of_what_is_longer_than_the_window_the_end_is_read(scorer: Scorer) -> None:
    long = "ab " * 100
    assert scorer.first_tokens(long, ["c"], np.arange(3)).shape == (2, 3)
    assert scorer.first_tokens("a", ["ab"] * 60, np.arange(3)).shape == (61, 3)
    assert np.isfinite(scorer.chances(long, [" a", " bcd"])).all()
    assert len(scorer.written([long], 4)) == 1
    assert np.isfinite(scorer.chances("", ["a"])).all()
