"""The language model's plain parts: what is held out, in which order it reads, how it is judged."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from treering.errors import DataError
from treering.lm.data import HOLD_OUT_DOCUMENTS, HOLD_OUT_TOKENS, TOO_FEW, WINDOW, batch_order, split, training_blocks
from treering.lm.evaluate import ByteModel, document_losses, judge, ngram_losses
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


# the hold-out ----------------------------------------------------------------------------------------------------


def test_the_newest_tenth_is_held_out_and_the_older_rest_is_trained_on() -> None:
    data = split(*corpus([2] * 120))
    assert data.train_documents == 108
    assert [document.tolist() for document in data.held_out] == [[number, number] for number in range(109, 121)]
    assert data.train.tolist() == [token for number in range(1, 109) for token in (number, number, EOS)]
    assert data.held_out_first == "108"
    assert data.held_out_bytes == (6,) * 12
    assert data.train_bytes == 108 * 6


@pytest.mark.parametrize(("count", "held"), [(8, 2), (20, 5), (31, 7), (32, TOO_FEW), (70, TOO_FEW), (100, 10)])
def test_a_short_history_gives_up_to_a_quarter(count: int, held: int) -> None:
    assert len(split(*corpus([2] * count)).held_out) == held


def test_a_repeat_is_in_neither_part() -> None:
    data = split(*corpus([1] * 11, repeats=[3, 9, 10]))
    assert data.duplicates == 3
    assert [document.tolist() for document in data.held_out] == [[8], [9]]
    assert data.train.tolist() == [token for number in (1, 2, 3, 5, 6, 7) for token in (number, EOS)]
    assert data.train_documents == 6


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_at_least_one_commit_is_held_out_and_one_is_trained_on(count: int) -> None:
    data = split(*corpus([5] * count))
    assert len(data.held_out) == 1
    assert data.train_documents == count - 1


def test_the_hold_out_is_bounded_in_documents() -> None:
    assert len(split(*corpus([1] * 2000)).held_out) == HOLD_OUT_DOCUMENTS


def test_the_hold_out_is_bounded_in_tokens() -> None:
    data = split(*corpus([HOLD_OUT_TOKENS // 2] * 40))
    assert [int(document[0]) for document in data.held_out] == [39, 40]
    assert data.train_documents == 38


def test_one_huge_newest_commit_is_held_out_all_the_same() -> None:
    data = split(*corpus([2, 2, HOLD_OUT_TOKENS + 1]))
    assert [len(document) for document in data.held_out] == [HOLD_OUT_TOKENS + 1]


@pytest.mark.parametrize(
    ("sizes", "repeats"), [([], []), ([3], []), ([3, 3], [1]), ([3, 0], [])], ids=["none", "one", "repeat", "no text"]
)
def test_fewer_than_two_commits_with_text_cannot_be_split(sizes: list[int], repeats: list[int]) -> None:
    with pytest.raises(DataError, match="nothing can be held out") as caught:
        split(*corpus(sizes, repeats))
    assert caught.value.hint


def test_a_file_that_names_no_end_of_text_has_none_between_documents() -> None:
    data = split(*corpus([2, 3, 4], eos=-1))
    assert data.train.tolist() == [1, 1, 2, 2, 2]
    assert [document.tolist() for document in data.held_out] == [[3] * 4]


# blocks and batches ----------------------------------------------------------------------------------------------


def test_a_block_has_its_inputs_and_one_more_to_predict() -> None:
    made = [block.tolist() for block in training_blocks(np.arange(10), 4)]
    assert made == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9]]


def test_a_stream_that_fits_a_block_is_one_block() -> None:
    assert [block.tolist() for block in training_blocks(np.arange(5), 4)] == [[0, 1, 2, 3, 4]]


def test_no_block_is_without_something_to_predict() -> None:
    assert all(len(block) >= 2 for size in range(2, 30) for block in training_blocks(np.arange(size), 4))


def test_the_order_of_batches_is_decided_by_seed_and_epoch() -> None:
    first = list(batch_order(200, 3, seed=7, epoch=1))
    assert first == list(batch_order(200, 3, seed=7, epoch=1))
    assert first != list(batch_order(200, 3, seed=7, epoch=2))
    assert first != list(batch_order(200, 3, seed=8, epoch=1))


def test_an_epoch_reads_every_block_once() -> None:
    batches = list(batch_order(200, 3, seed=7, epoch=0))
    assert sorted(number for batch in batches for number in batch) == list(range(200))
    assert [len(batch) for batch in batches] == [3] * 66 + [2]


def test_the_newest_blocks_are_read_first() -> None:
    (order,) = batch_order(150, 1000, seed=7, epoch=0)
    assert set(order[:WINDOW]) == set(range(150 - WINDOW, 150))
    assert order[:WINDOW] != sorted(order[:WINDOW])


def test_blocks_of_a_batch_are_padded_with_what_the_loss_ignores() -> None:
    import torch

    from treering.lm.module import IGNORED, collate

    inputs, labels = collate([torch.tensor([5, 6, 7, 8]), torch.tensor([9, 4])])
    assert inputs.tolist() == [[5, 6, 7], [9, 0, 0]]
    assert labels.tolist() == [[6, 7, 8], [4, IGNORED, IGNORED]]


# the budget ------------------------------------------------------------------------------------------------------


def test_the_budget_is_spent_by_steps() -> None:
    from treering.lm.module import Budget

    budget = Budget(steps=10, seconds=1e9)
    assert [budget.spent(step) for step in (0, 5, 10, 20)] == pytest.approx([0, 0.5, 1, 1], abs=1e-6)


def test_the_budget_is_spent_by_time() -> None:
    import time

    from treering.lm.module import Budget

    assert Budget(1000, 100, started=time.monotonic() - 50).spent(0) == pytest.approx(0.5, abs=0.1)
    assert Budget(1000, 100, started=time.monotonic() - 500).spent(0) == 1


def test_a_budget_without_end_is_spent_by_steps_alone() -> None:
    from treering.lm.module import Budget

    assert Budget(10, math.inf).spent(5) == 0.5


def test_no_time_at_all_is_spent_at_once() -> None:
    from treering.lm.module import Budget

    assert Budget(10, 0).spent(0) == 1


def test_the_learning_rate_warms_up_stays_and_goes_down_to_a_tenth() -> None:
    from treering.lm.module import DECAY, WARM_UP_STEPS, rate

    warm = [rate(step, 0.0) for step in range(WARM_UP_STEPS)]
    assert warm[0] > 0
    assert warm == sorted(set(warm))
    assert warm[-1] == 1
    assert rate(100, 0.5) == rate(100, 1 - DECAY) == 1
    late = [rate(100, 1 - DECAY + DECAY * part / 10) for part in range(11)]
    assert late == sorted(late, reverse=True)
    assert late[-1] == pytest.approx(0.1)


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
