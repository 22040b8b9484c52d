"""From a real history to a model of it: trained by real torch, loaded by real transformers."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bytewise import byte_tokenizer
from repositories import Repo
from treering import learning, opening
from treering.errors import DataError, ModelError, UsageError
from treering.lm.base import check_base
from treering.lm.recipe import Recipe
from treering.opening import Place
from treering.pipeline import learn as learn_stage
from treering.report import Reporter
from treering.store import Store
from treering.tokens.pack import read_sequences, write_sequences
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import TokenDocument

SUBJECTS = [f"<COMMIT> {number:02x}\n<MESSAGE> rule {number % 5}\n" for number in range(40)]


def place(repo: Repo, **train: object) -> Place:
    return opening.place(repo.path, None, {"train": {"model": "scratch", "method": "full", "minutes": 0.05} | train})


def trained(where: Place, report: Reporter | None = None, **how: Any) -> learn_stage.Learned:
    learned = learning.train(where, report or Reporter(), **how)
    assert learned
    return learned


@pytest.fixture
def small(tmp_path: Path) -> TextTokenizer:
    """A tokenizer of bytes in a folder: a vocabulary of 257, so that a model of it trains in a moment."""
    byte_tokenizer().save(tmp_path / "bytes")
    return load_tokenizer(str(tmp_path / "bytes"))


def token_file(path: Path, tokenizer: TextTokenizer) -> Path:
    documents = [
        TokenDocument(f"{number:040x}", tuple(ids), len(SUBJECTS[number].encode()))
        for number, ids in enumerate(tokenizer.encode(SUBJECTS))
    ]
    write_sequences(path, documents, tokenizer=tokenizer, repo=lambda: "the-block", strategy="semantic", length=64)
    return path


def learned(tokens: Path, base: str = "scratch", *, weights: str = "safetensors", **changes: Any) -> tuple[Path, Any]:
    """The model's folder and its report, of one epoch that no clock cuts short."""
    recipe: dict[str, Any] = {
        "method": "full", "minutes": 10.0, "epochs": 1, "batch_size": 2, "learning_rate": 1e-3, "sequence_length": 64,
        "seed": 7, "gpu": False,
    } | changes  # fmt: skip
    corpus, ids = read_sequences(tokens)
    folder = tokens.parent / "model"
    return folder, learn_stage.learn(corpus, ids, base, Recipe(**recipe), folder, Reporter(), weights_format=weights)


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True)


# a repository learned --------------------------------------------------------------------------------------------


def test_a_repository_is_learned_once_into_a_model_that_transformers_loads(story: Repo) -> None:
    from transformers import AutoTokenizer

    learned = trained(place(story))
    folder, told = learned.folder, learned.report
    model: Any = loaded(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    assert model.config.vocab_size == len(tokenizer) == told.vocab_size == 50257
    assert model.config.eos_token_id == tokenizer.eos_token_id == 50256
    assert tokenizer("Hello world")["input_ids"] == [15496, 995]

    report = json.loads((folder / "training_report.json").read_text())
    assert next(iter(report)) == "verdict"
    assert set(report["holdout"]["bits_per_byte"]) == {"base", "tuned", "ngram"}
    assert all(0 < bits < 20 for bits in report["holdout"]["bits_per_byte"].values())
    assert report["training"]["steps"] == len(report["training"]["losses"]) > 0
    assert report["repo"] == "project"

    said = io.StringIO()
    assert trained(place(story), Reporter(said)) == replace(learned, new=False)
    assert "nothing new to learn" in said.getvalue()
    assert "Epoch" not in said.getvalue()
    with Store.existing(place(story).folder) as store:
        assert learn_stage.current_model(store) == folder


def test_a_budget_of_no_minutes_is_refused(repo: Repo) -> None:
    repo.commit("one")
    with pytest.raises(UsageError, match="0 minutes"):
        learning.train(place(repo, minutes=0), Reporter())


def test_a_history_too_short_to_judge_on_is_refused(repo: Repo) -> None:
    repo.commit("the only commit", a__py="x = 1\n")
    with pytest.raises(DataError, match="nothing can be held out"):
        learning.train(place(repo), Reporter())


@pytest.mark.parametrize("name", ["nobody/no-such-model", "facebook/opt-350m", "./no/folder", "no such name!"])
def test_an_unknown_base_model_fails_at_once_with_those_that_are_here(repo: Repo, name: str) -> None:
    repo.commit("one")
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        learning.train(place(repo, model=name), Reporter())
    assert time.monotonic() - started < 15
    assert name in caught.value.message
    assert "smollm2-135m" in caught.value.hint
    assert "scratch" in caught.value.hint


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        check_base(str(tmp_path))


# a token file learned --------------------------------------------------------------------------------------------


def test_a_model_learns_what_its_history_repeats(tmp_path: Path, small: TextTokenizer) -> None:
    _, told = learned(token_file(tmp_path / "tokens.json", small), epochs=4, learning_rate=3e-3)
    bits = told.holdout.bits_per_byte
    assert bits["tuned"] < 0.8 * bits["base"]
    assert told.verdict.startswith("Tuning helped")
    assert told.training.stopped_by == "epochs"
    assert told.training.epochs_done == 4
    assert told.training.losses[-1] < told.training.losses[0]
    assert (told.train_documents, told.holdout.documents) == (32, 8)
    assert told.training.tokens == 4 * (told.train_tokens - 1)


def test_low_rank_adapters_are_trained_and_merged(tmp_path: Path, small: TextTokenizer) -> None:
    tokens = token_file(tmp_path / "tokens.json", small)
    folder, told = learned(tokens, method="lora", epochs=4, learning_rate=1e-2)
    assert told.verdict.startswith("Tuning helped")
    names = set(loaded(folder).state_dict())
    full, _ = learned(tokens)
    assert names == set(loaded(full).state_dict())
    assert not any("lora" in name or "base_layer" in name for name in names)
    assert not (folder / "adapter_config.json").exists()


def test_low_rank_adapters_train_the_rows_of_added_markers_whole(tmp_path: Path, small: TextTokenizer) -> None:
    marked = load_tokenizer(small.name, ("<COMMIT>", "<MESSAGE>"))
    folder, told = learned(token_file(tmp_path / "tokens.json", marked), method="lora", epochs=4, learning_rate=1e-2)
    assert told.verdict.startswith("Tuning helped")
    assert loaded(folder).get_input_embeddings().weight.shape[0] == told.vocab_size


def test_the_same_seed_gives_the_same_losses_and_another_gives_others(tmp_path: Path, small: TextTokenizer) -> None:
    tokens = token_file(tmp_path / "tokens.json", small)
    (_, one), (_, same), (_, other) = learned(tokens), learned(tokens), learned(tokens, seed=8)
    assert one.training.losses == same.training.losses
    assert one.holdout == same.holdout
    assert one.training.losses != other.training.losses


def test_a_training_stops_when_its_minutes_are_over(tmp_path: Path, small: TextTokenizer) -> None:
    _, told = learned(token_file(tmp_path / "tokens.json", small), epochs=100_000, minutes=0.01)
    assert told.training.stopped_by == "minutes"
    assert 0 < told.training.seconds < 10
    assert told.training.steps == len(told.training.losses)


def test_weights_are_written_as_safetensors_and_on_request_as_bin_too(tmp_path: Path, small: TextTokenizer) -> None:
    import torch

    tokens = token_file(tmp_path / "tokens.json", small)
    folder, _ = learned(tokens)
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "pytorch_model.bin").exists()
    folder, _ = learned(tokens, weights="bin")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    model = loaded(folder)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "model", "tokens.json"]


def test_added_markers_get_rows_of_their_own(tmp_path: Path, small: TextTokenizer) -> None:
    marked = load_tokenizer(small.name, ("<COMMIT>", "<MESSAGE>"))
    folder, told = learned(token_file(tmp_path / "tokens.json", marked))
    assert told.vocab_size == small.vocab_size + 2
    assert loaded(folder).get_input_embeddings().weight.shape[0] == told.vocab_size


def test_a_model_is_trained_on_from_its_own_folder(tmp_path: Path, small: TextTokenizer) -> None:
    tokens = token_file(tmp_path / "tokens.json", small)
    folder, first = learned(tokens)
    base = folder.rename(tmp_path / "base")
    _, second = learned(tokens, str(base))
    assert second.holdout.bits_per_byte["base"] == pytest.approx(first.holdout.bits_per_byte["tuned"], abs=1e-3)


def test_a_base_that_reads_less_than_a_sequence_is_refused(tmp_path: Path, small: TextTokenizer) -> None:
    tokens = token_file(tmp_path / "tokens.json", small)
    base = learned(tokens)[0].rename(tmp_path / "base")
    with pytest.raises(DataError, match="reads at most 64") as caught:
        learned(tokens, str(base), sequence_length=128)
    assert "--sequence-length" in caught.value.hint


def test_tokens_of_another_vocabulary_are_refused_naming_both(tmp_path: Path, small: TextTokenizer) -> None:
    tokens = token_file(tmp_path / "tokens.json", load_tokenizer("gpt2"))
    base = learned(token_file(tmp_path / "small.json", small))[0].rename(tmp_path / "base")
    with pytest.raises(DataError, match="another vocabulary") as caught:
        learned(tokens, str(base))
    assert "gpt2, 50,257 tokens" in caught.value.message
    assert f"`{base}`'s (257)" in caught.value.message
    assert f"--model {base}" in caught.value.hint


def test_the_seeds_ids_outside_their_vocabulary_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    content = {"token_sequences": [[19304, 50274], [2343]], "vocab_size": 50257, "num_sequences": 2, "total_tokens": 3}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="the id 50274, outside its vocab_size 50257"):
        learned(path)


def test_a_loss_that_is_no_number_ends_the_training_and_leaves_no_model(tmp_path: Path, small: TextTokenizer) -> None:
    with pytest.raises(ModelError, match="the loss became") as caught:
        learned(token_file(tmp_path / "tokens.json", small), learning_rate=1e30, epochs=5)
    assert "learning rate" in caught.value.hint
    assert not (tmp_path / "model").exists()
