"""The language model's plain parts: what is held out, in which order it reads, how it is judged."""

import math
from collections.abc import Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from treering.errors import DataError
from treering.lm.data import (
    HOLD_OUT_DOCUMENTS,
    HOLD_OUT_TOKENS,
    LINE_OF_HISTORY,
    TOO_FEW,
    VALIDATION_TOKENS,
    WINDOW,
    Blocks,
    Split,
    Stream,
    sequences,
    split,
)
from treering.lm.evaluate import ByteModel, document_losses, judge, ngram_losses, token_losses
from treering.lm.recipe import Recipe, limit, steps
from treering.types import Corpus, Span

EOS = 0


def corpus(sizes: Sequence[int], repeats: Sequence[int] = (), *, eos: int = EOS) -> tuple[Corpus, Any]:
    """Documents of those sizes; all tokens of document n are n + 1. Those in ``repeats`` repeat document 0."""
    spans = tuple(
        Span(f"{number}", size, 3 * size, "0" if number in repeats else None) for number, size in enumerate(sizes)
    )
    ids = [
        token
        for number, size in enumerate(sizes)
        for token in [number + 1] * size + ([eos] if eos >= 0 else [])
    ]  # fmt: skip
    told = Corpus(
        vocab_size=1 << 16, num_sequences=1, total_tokens=len(ids), sequence_length=8, repo="r", strategy="flat",
        tokenizer="gpt2", tokenizer_fingerprint="", added_tokens=(), eos_id=eos, documents=spans,
    )  # fmt: skip
    return told, np.array(ids, dtype=np.uint16)


def text(stream: Stream) -> list[int]:
    return list(map(int, stream.read(0, len(stream))))


def later(data: Split) -> list[list[int]]:
    """Everything that is not learned from, oldest first."""
    return [document.tolist() for document in (*data.validation.documents, *data.held_out.documents)]


# the hold-out ----------------------------------------------------------------------------------------------------


def test_the_newest_tenth_is_held_out_and_the_older_rest_is_trained_on() -> None:
    data = split(*corpus([2] * 120))
    assert data.train_documents == 108
    assert later(data) == [[number, number] for number in range(109, 121)]
    assert text(data.train) == [token for number in range(1, 109) for token in (number, number, EOS)]
    assert (data.validation.commits, data.held_out.commits[0]) == (("108", "109"), "110")
    assert (data.validation.bytes, data.held_out.bytes) == ((6,) * 2, (6,) * 10)
    assert data.train_bytes == 108 * 6


@pytest.mark.parametrize(("count", "held"), [(8, 2), (20, 5), (31, 7), (32, TOO_FEW), (70, TOO_FEW), (100, 10)])
def test_a_short_history_gives_up_to_a_quarter(count: int, held: int) -> None:
    assert len(later(split(*corpus([2] * count)))) == held


def test_a_repeat_is_in_neither_part() -> None:
    data = split(*corpus([1] * 11, repeats=[3, 9, 10]))
    assert data.duplicates == 3
    assert later(data) == [[8], [9]]
    assert text(data.train) == [token for number in (1, 2, 3, 5, 6, 7) for token in (number, EOS)]
    assert data.train_documents == 6


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_at_least_one_commit_is_held_out_and_one_is_trained_on(count: int) -> None:
    data = split(*corpus([5] * count))
    assert len(later(data)) == 1
    assert data.train_documents == count - 1


def test_the_hold_out_is_bounded_in_documents() -> None:
    assert len(later(split(*corpus([1] * 2000)))) == HOLD_OUT_DOCUMENTS


def test_the_hold_out_is_bounded_in_tokens() -> None:
    data = split(*corpus([HOLD_OUT_TOKENS // 16] * 400))
    assert len(later(data)) == 16
    assert data.train_documents == 384


def test_large_documents_are_held_out_as_many_as_a_figure_needs() -> None:
    data = split(*corpus([HOLD_OUT_TOKENS // 2] * 400))
    assert len(later(data)) == TOO_FEW


def test_one_huge_newest_commit_is_held_out_all_the_same() -> None:
    data = split(*corpus([2, 2, HOLD_OUT_TOKENS + 1]))
    assert [len(document) for document in later(data)] == [HOLD_OUT_TOKENS + 1]


@pytest.mark.parametrize(
    ("sizes", "repeats"), [([], []), ([3], []), ([3, 3], [1]), ([3, 0], [])], ids=["none", "one", "repeat", "no text"]
)
def test_fewer_than_two_commits_with_text_cannot_be_split(sizes: list[int], repeats: list[int]) -> None:
    with pytest.raises(DataError, match="nothing can be held out") as caught:
        split(*corpus(sizes, repeats))
    assert caught.value.hint


def test_a_file_that_names_no_end_of_text_has_none_between_documents() -> None:
    data = split(*corpus([2, 3, 4], eos=-1))
    assert text(data.train) == [1, 1, 2, 2, 2]
    assert later(data) == [[3] * 4]


def grouped(groups: Sequence[str], size: int = 2) -> Split:
    told, ids = corpus([size] * len(groups))
    spans = [
        Span(span.commit_hash, span.tokens, span.bytes, None, group)
        for span, group in zip(told.documents, groups, strict=True)
    ]
    return split(msgspec.structs.replace(told, documents=tuple(spans)), ids)


def test_a_merge_is_never_parted_from_the_commits_it_brought() -> None:
    data = grouped(["", "m", *[""] * 17, "m"])
    assert later(data)[-1] == [20, 20]
    assert 2 not in text(data.train)
    assert data.with_held_out == 1
    assert data.train_documents == 14


def test_a_branch_as_large_as_a_history_is_no_group() -> None:
    data = grouped(["m"] * (LINE_OF_HISTORY + 1) + [""] * 20 + ["m"])
    assert data.with_held_out == 0


def test_the_oldest_of_what_is_held_out_watches_the_training() -> None:
    data = split(*corpus([2] * 200))
    assert (len(data.validation.documents), len(data.held_out.documents)) == (4, 16)
    assert data.validation.commits[-1] < data.held_out.commits[0]
    large = split(*corpus([VALIDATION_TOKENS // 2] * 200))
    assert len(large.validation.documents) == 2


@pytest.mark.parametrize("count", [8, 20, 70])
def test_where_little_is_held_out_nothing_watches(count: int) -> None:
    assert not split(*corpus([2] * count)).validation.documents


def test_a_training_that_goes_on_learns_what_is_new_beside_as_much_of_what_is_old() -> None:
    told, ids = corpus([2] * 100)
    data = split(told, ids, after="60", seed=7)
    learned = [token - 1 for token in text(data.train)[::3]]
    assert {number for number in learned if number >= 60} == set(range(60, 80))
    assert len([number for number in learned if number < 60]) == 20
    assert learned != sorted(learned)
    assert [document[0] - 1 for document in later(data)] == list(range(80, 100))
    assert text(split(told, ids, after="60", seed=7).train) == text(data.train)


def test_too_few_new_commits_are_not_gone_on_with() -> None:
    with pytest.raises(DataError, match="15 commit") as caught:
        split(*corpus([2] * 100), after="85")
    assert "--continue" in caught.value.hint


def test_a_history_that_was_rewritten_cannot_be_gone_on_with() -> None:
    with pytest.raises(DataError, match="not in this history any more"):
        split(*corpus([2] * 100), after="gone")


# blocks and batches ----------------------------------------------------------------------------------------------


def stream(size: int) -> Stream:
    return Stream(np.arange(size, dtype=np.uint16), np.array([0]), np.array([size]))


def test_a_stream_reads_over_the_borders_of_its_documents() -> None:
    made = Stream(np.arange(20, dtype=np.uint16), np.array([0, 5, 12]), np.array([3, 9, 13]))
    assert len(made) == 8
    assert text(made) == [0, 1, 2, 5, 6, 7, 8, 12]
    assert [made.read(start, start + 3).tolist() for start in (0, 2, 6, 8)] == [[0, 1, 2], [2, 5, 6], [8, 12], []]


def test_a_block_has_its_inputs_and_one_more_to_predict() -> None:
    made = Blocks(stream(10), 4)
    assert [made[number].tolist() for number in range(len(made))] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9]]
    assert [made.predicted(number) for number in range(len(made))] == [4, 4, 1]


def test_a_stream_that_fits_a_block_is_one_block() -> None:
    made = Blocks(stream(5), 4)
    assert len(made) == 1
    assert made[0].tolist() == [0, 1, 2, 3, 4]


def epoch(count: int, seed: int, number: int) -> list[int]:
    return list(islice(sequences(count, seed), number * count, (number + 1) * count))


def test_the_order_is_decided_by_seed_and_epoch() -> None:
    assert epoch(200, 7, 1) == epoch(200, 7, 1)
    assert epoch(200, 7, 1) != epoch(200, 7, 2)
    assert epoch(200, 7, 1) != epoch(200, 8, 1)


def test_an_epoch_reads_every_block_once_the_newest_first() -> None:
    order = epoch(150, 7, 0)
    assert sorted(order) == list(range(150))
    assert set(order[:WINDOW]) == set(range(150 - WINDOW, 150))
    assert order[:WINDOW] != sorted(order[:WINDOW])


@pytest.mark.parametrize("start", [0, 1, 63, 64, 65, 149, 150, 151, 400])
def test_the_order_can_be_taken_up_anywhere(start: int) -> None:
    assert list(islice(sequences(150, 7, start), 100)) == list(islice(sequences(150, 7), start, start + 100))


def test_blocks_of_a_batch_are_padded_with_what_the_loss_ignores() -> None:
    from treering.lm.module import IGNORED, collate

    inputs, labels = collate([np.array([5, 6, 7, 8]), np.array([9, 4])])
    assert inputs.tolist() == [[5, 6, 7], [9, 0, 0]]
    assert labels.tolist() == [[6, 7, 8], [4, IGNORED, IGNORED]]


# the budget ------------------------------------------------------------------------------------------------------


def test_the_budget_is_spent_by_steps() -> None:
    from treering.lm.module import Budget

    budget = Budget(steps=10, seconds=1e9)
    assert [budget.look(step) for step in (0, 5, 10, 20)] == pytest.approx([0, 0.5, 1, 1], abs=1e-6)


def test_the_budget_is_spent_by_time_an_earlier_run_counted() -> None:
    import time

    from treering.lm.module import Budget

    assert Budget(1000, 100, started=time.monotonic() - 50).look(0) == pytest.approx(0.5, abs=0.1)
    assert Budget(1000, 100, before=30, started=time.monotonic() - 20).look(0) == pytest.approx(0.5, abs=0.1)
    assert Budget(1000, 100, started=time.monotonic() - 500).look(0) == 1


def test_a_budget_without_end_is_spent_by_steps_alone() -> None:
    from treering.lm.module import Budget

    assert Budget(10, math.inf).look(5) == 0.5


def test_no_time_at_all_is_spent_at_once() -> None:
    from treering.lm.module import Budget

    assert Budget(10, 0).look(0) == 1


@pytest.mark.parametrize(("steps", "warm_up"), [(10, 5), (1000, 20), (100_000, 100)])
def test_the_learning_rate_warms_up_stays_and_goes_down_to_a_tenth(steps: int, warm_up: int) -> None:
    from treering.lm.module import DECAY, Budget

    budget = Budget(steps, math.inf)
    warm = [budget.rate(step) for step in range(warm_up)]
    assert warm[0] > 0
    assert warm == sorted(set(warm))
    assert warm[-1] == 1

    def rate(spent: float) -> float:
        budget.spent = spent
        return budget.rate(steps)

    assert rate(0.5) == rate(1 - DECAY) == 1
    late = [rate(1 - DECAY + DECAY * part / 10) for part in range(11)]
    assert late == sorted(late, reverse=True)
    assert late[-1] == pytest.approx(0.1)


def recipe(**changes: object) -> Recipe:
    plain: dict[str, Any] = {
        "method": "full", "minutes": 1.0, "epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "sequence_length": 10,
        "seed": 7, "gpu": False,
    }  # fmt: skip
    return Recipe(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "wanted", "by"),
    [
        ({}, 8, "epochs"),
        ({"max_steps": 5}, 5, "steps"),
        ({"max_steps": 50}, 8, "epochs"),
        ({"max_tokens": 100}, 2, "tokens"),
        ({"max_tokens": 1}, 1, "tokens"),
        ({"max_tokens": 100, "max_steps": 1}, 1, "steps"),
    ],
)
def test_the_least_of_epochs_steps_and_tokens_holds(changes: dict[str, object], wanted: int, by: str) -> None:
    chosen = recipe(**changes)
    assert steps(10, chosen) == wanted
    assert limit(wanted, chosen) == by


# the verdict -----------------------------------------------------------------------------------------------------

NATS = np.array([100.0, 120.0, 90.0, 110.0] * 2)
SIZES = [50, 60, 45, 55] * 2


def verdict(tuned: Any, ngram: Any) -> Any:
    return judge(NATS, np.asarray(tuned), np.asarray(ngram), 200, SIZES, seed=7)


def test_a_model_better_on_every_commit_is_said_to_help() -> None:
    told = verdict(NATS * 0.8, NATS * 0.9)
    assert told.verdict.startswith("Tuning helped")
    assert "(-20.0%), below the adaptive byte n-gram" in told.verdict
    low, high = told.difference[1:]
    assert low <= told.difference[0] <= high < 0


def test_a_model_that_the_n_gram_beats_is_told_so() -> None:
    assert "NOT below the adaptive byte n-gram" in verdict(NATS * 0.8, NATS * 0.7).verdict


def test_a_model_worse_on_every_commit_is_said_to_do_harm() -> None:
    told = verdict(NATS * 1.2, NATS)
    assert told.verdict.startswith("Tuning did harm")
    assert "Use the base model." in told.verdict
    assert told.difference[1] > 0


def test_a_model_better_here_and_worse_there_is_not_shown_to_help() -> None:
    told = verdict(NATS + np.array([20, -20] * 4), NATS)
    assert told.verdict.startswith("Tuning is not shown to help")
    assert "the interval holds zero" in told.verdict
    assert told.difference[1] <= 0 <= told.difference[2]


def test_on_too_few_commits_nothing_is_said_to_help() -> None:
    few = slice(TOO_FEW - 1)
    told = judge(NATS[few], NATS[few] * 0.5, NATS[few], 200, SIZES[few], seed=7)
    assert told.verdict.startswith(f"Too few later commits ({TOO_FEW - 1})")
    assert "(-50.0%)" in told.verdict


def test_bits_per_byte_are_nats_over_bytes_in_base_two() -> None:
    told = verdict(NATS * 0.5, NATS)
    base = NATS.sum() / math.log(2) / sum(SIZES)
    assert told.bits_per_byte == pytest.approx({"base": base, "tuned": base / 2, "ngram": base}, abs=1e-4)
    assert (told.documents, told.bytes, told.total_tokens) == (8, 420, 200)
    assert told.total_loss == pytest.approx(420)
    assert told.perplexity == pytest.approx(math.exp(2.1), abs=1e-4)


def test_the_verdict_is_the_same_each_time() -> None:
    mixed = NATS + np.array([5, -7, 1, 0] * 2)
    assert verdict(mixed, NATS) == verdict(mixed, NATS)


def test_without_the_bytes_of_the_text_only_perplexity_is_told() -> None:
    told = judge(NATS, NATS * 0.5, NATS, 200, [0] * 8, seed=7)
    assert told.bits_per_byte == {"base": None, "tuned": None, "ngram": None}
    assert told.difference is None
    assert told.verdict.startswith(f"Perplexity {math.exp(4.2):.2f} before, {math.exp(2.1):.2f} after")


# the yardstick ---------------------------------------------------------------------------------------------------


def test_the_n_gram_beats_chance_on_text_that_repeats() -> None:
    text = b"<COMMIT> add the rule\n" * 20
    assert ByteModel().read(text) < 0.2 * len(text) * math.log(256)


def test_the_n_gram_learns_from_what_it_reads() -> None:
    model = ByteModel()
    text = b"settle the dispute in the ledger\n"
    first = model.read(text)
    assert model.read(text) < 0.3 * first


def test_the_first_byte_is_as_likely_as_any() -> None:
    assert ByteModel().read(b"x") == pytest.approx(math.log(256))


def test_no_text_costs_nothing() -> None:
    assert ByteModel().read(b"") == 0


@pytest.mark.parametrize("text", [b"", b"a", b"abracadabra", b"aaaa\x00\xff"])
def test_the_chances_of_the_next_byte_sum_to_one(text: bytes) -> None:
    def cost(read: bytes) -> float:
        model = ByteModel()
        model.read(b"abcabd")
        return model.read(read)

    before = cost(text)
    assert sum(math.exp(before - cost(text + bytes([byte]))) for byte in range(256)) == pytest.approx(1)


def test_the_yardstick_has_read_the_training_text_and_goes_on_learning() -> None:
    document = b"a new subject entirely\n"
    unread = ngram_losses(b"", [document, document])
    read = ngram_losses(document * 5, [document, document])
    assert unread.shape == (2,)
    assert unread[1] < unread[0]
    assert read[0] < unread[0]


# the loss of documents -------------------------------------------------------------------------------------------


class Guesser:
    """A model of 8 tokens that expects each token again: the next one is likely what this one is."""

    def __init__(self) -> None:
        self.read = 0

    def to(self, _: str) -> "Guesser":
        return self

    def eval(self) -> None:
        pass

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        import torch

        self.read += input_ids.numel()
        return SimpleNamespace(logits=3.0 * torch.nn.functional.one_hot(input_ids, 8).float())


@pytest.mark.parametrize("window", [1, 2, 3, 5, 100])
def test_each_token_is_judged_once_and_no_end_of_text_is(window: int) -> None:
    documents = [np.array([5, 5, 5]), np.array([6]), np.array([2, 3])]
    right, wrong = -math.log(math.exp(3) / (math.exp(3) + 7)), -math.log(1 / (math.exp(3) + 7))
    guesser = Guesser()
    losses = document_losses(guesser, documents, EOS, window, gpu=False)
    assert losses == pytest.approx([wrong + 2 * right, wrong, 2 * wrong], abs=1e-5)
    assert guesser.read == sum(len(document) + 1 for document in documents)


class Copier(Guesser):
    """Expects behind a token what came behind it the last time, as far as it is shown it."""

    def __call__(self, input_ids: Any, logits_to_keep: int = 0, **_: Any) -> Any:
        import torch

        self.read += input_ids.numel()
        (ids,) = input_ids.tolist()
        rows = []
        for place, token in enumerate(ids):
            before = [one for one in range(place) if ids[one] == token]
            rows.append([9.0 * (before != [] and ids[before[-1] + 1] == other) for other in range(8)])
        return SimpleNamespace(logits=torch.tensor([rows[-logits_to_keep:]]))


@pytest.mark.parametrize("window", [1, 2, 3, 5, 100])
def test_what_came_before_is_shown_and_judged_once_only(window: int) -> None:
    documents, before = [np.array([5, 6, 2]), np.array([5, 6, 2])], np.array([3, 4, 5, 6, 2])
    surprised = math.log(8)
    plain = token_losses(Copier(), documents, EOS, 2, gpu=False)
    assert [len(one) for one in plain] == [3, 3]
    assert float(np.concatenate(plain).max()) >= surprised
    shown = token_losses(Copier(), documents, EOS, window, gpu=False, before=before, shown=8)
    assert [len(one) for one in shown] == [3, 3]
    assert np.concatenate([shown[0][1:], shown[1]]).max() < 0.01, "all but what no text began with was seen before"
    assert shown[0][0] > 1
    little = token_losses(Copier(), documents, EOS, 1, gpu=False, before=before, shown=2)
    assert little[0][1] >= surprised, "it was shown further back than it should"
