"""What strange input does, room by room: words stay whole, and every refusal is ours and names the thing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from repositories import Repo
from treering import modelpack, opening, operations
from treering.config import load
from treering.errors import DataError, ModelError, TreeringError, UsageError
from treering.lm.recipe import Recipe
from treering.opening import Place
from treering.pipeline import learn as learn_stage
from treering.report import Reporter
from treering.search.fusion import z_scores
from treering.store import Store
from treering.text.document import features
from treering.text.kinds import kind_of
from treering.text.strategies import Duplicates
from treering.text.words import plain_words
from treering.tokens.pack import read_sequences, read_stream, write_sequences, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import FilePatch, LineStats, Record, TokenDocument

SEED = Record(
    commit_hash="a1b2c3d" + "0" * 33, author_name="Ian Reitsma", author_email="ian@example.com", message_subject="x",
    message_body="", branch="main", is_merge=False, files_added=(), files_modified=(), files_deleted=(), insertions=0,
    deletions=0, diff_summary="", stats={}, commit_timestamp=1, parent_hashes=(),
)  # fmt: skip


def record(number: int = 0, **changes: Any) -> Record:
    return replace(SEED, commit_hash=f"{number:040x}", **changes)


# unit/test_text.py -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("größe", ["größe"]),
        ("été", ["été"]),
        ("naïve_name", ["naïve_name", "naïve", "name"]),
        ("GrößeName", ["größename", "größe", "name"]),
    ],
)
def test_a_word_with_accents_is_not_shredded(text: str, expected: list[str]) -> None:
    assert list(plain_words(text)) == expected


def featured(line: str) -> dict[str, int]:
    patch = FilePatch("a.py", f"@@ -0,0 +1 @@\n{line}")
    return features(record(patches=(patch,)), kind_of).identifiers


@pytest.mark.parametrize("text", ["_settle", "settle_", "__settle__"])
def test_a_name_with_underscores_around_it_is_found_without_them(text: str) -> None:
    assert list(plain_words(text)) == [text, "settle"]


def test_a_name_that_begins_with_an_accent_is_kept_whole() -> None:
    assert featured("+übername = имя_файла") == {
        "übername": 1,
        "имя_файла": 1,
    }


def test_long_data_in_a_diff_is_no_identifier() -> None:
    assert featured(f"+KEY = '{'x' * 200}'") == {"KEY": 1}


def test_the_tail_of_a_number_is_no_identifier() -> None:
    assert featured("+0xdeadbeef 9abcd") == {}


def test_dropping_a_file_does_not_repeat_adding_it() -> None:
    found = Duplicates()
    binary = {"picture.png": LineStats(0, 0)}
    assert found.of(record(1, message_subject="Add a picture", stats=binary, files_added=("picture.png",))) is None
    assert found.of(record(2, message_subject="Drop it", stats=binary, files_deleted=("picture.png",))) is None


# unit/test_search.py ---------------------------------------------------------------------------------------------


def test_equal_large_scores_say_nothing() -> None:
    assert z_scores(np.array([7034.695956808452] * 14)).tolist() == [0] * 14


# unit/test_config.py ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("TREERING_TRAIN_MINUTE", "1"), ("TREERING_TRAIN_MINUTES", "soon")])
def test_a_wrong_variable_is_told_by_its_own_name(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, {name: value})
    assert name in caught.value.message


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    with pytest.raises(UsageError, match="`seed`"):
        load(None, {"TREERING_TRAIN_SEED": str(2**32)})


# integration/test_tokens.py --------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> TextTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    TextTokenizer("bytes", made, "<|endoftext|>").save(tmp_path / "bytes")
    return load_tokenizer(str(tmp_path / "bytes"))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_torn_tokenizer_file_is_named(small: TextTokenizer, tmp_path: Path, name: str) -> None:
    (tmp_path / "bytes" / name).write_text("{")
    with pytest.raises(ModelError) as caught:
        load_tokenizer(str(tmp_path / "bytes"))
    assert name in caught.value.message


def test_a_stream_of_no_documents_is_told_not_crashed_on(small: TextTokenizer, tmp_path: Path) -> None:
    write_stream(tmp_path / "tokens", [], tokenizer=small, repo="r", strategy="flat", length=8)
    with pytest.raises(DataError):
        read_stream(tmp_path / "tokens")


def test_a_file_whose_documents_do_not_add_up_is_refused(small: TextTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    documents = [TokenDocument("a" * 40, (1, 2, 3), 3), TokenDocument("b" * 40, (4,), 1)]
    write_sequences(path, documents, tokenizer=small, repo=lambda: "r", strategy="flat", length=8)
    content = json.loads(path.read_text())
    content["documents"][0]["tokens"] = 400
    path.write_text(json.dumps(content))
    with pytest.raises(DataError):
        read_sequences(path)


def test_tokenizers_that_split_differently_have_different_fingerprints(small: TextTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "bytes" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(content))
    other = load_tokenizer(str(tmp_path / "bytes"))
    assert other.encode(["a"]) != small.encode(["a"])
    assert other.fingerprint != small.fingerprint


# integration/test_index.py ---------------------------------------------------------------------------------------


def place(repo: Repo, **train: object) -> Place:
    return opening.place(repo.path, None, {"train": {"model": "scratch", "method": "full", "minutes": 0.05} | train})


def test_without_the_model_an_index_of_words_is_made_and_told(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.commit("Weigh the zeppelin", a__py="x = 1\n")
    monkeypatch.setitem(
        modelpack.PACK, "minilm.weights", modelpack.PackFile("no-such-package", "model.safetensors", "0")
    )
    report = Reporter()
    assert operations.index(place(repo), report).commits == 1
    assert report.warnings


def test_an_error_while_writing_is_not_told_as_one_of_the_lock(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store, pytest.raises(FileNotFoundError):  # noqa: SIM117
        with store.writing("a test"):
            raise FileNotFoundError(2, "No such file or directory", "git")


# integration/test_learning.py ------------------------------------------------------------------------------------


def learned(tokens: Path, base: str = "scratch", **changes: Any) -> tuple[Path, Any]:
    recipe: dict[str, Any] = {
        "method": "full", "minutes": 10.0, "epochs": 1, "batch_size": 2, "learning_rate": 1e-3, "sequence_length": 64,
        "seed": 7, "gpu": False,
    } | changes  # fmt: skip
    corpus, ids = read_sequences(tokens)
    return tokens.parent / "model", learn_stage.learn(
        corpus, ids, base, Recipe(**recipe), tokens.parent / "model", Reporter()
    )


def tiny(tmp_path: Path, tokenizer: TextTokenizer) -> Path:
    path = tmp_path / "tokens.json"
    documents = [
        TokenDocument(f"{number:040x}", tuple(ids), 20)
        for number, ids in enumerate(tokenizer.encode([f"add the rule number {number}\n" for number in range(12)]))
    ]
    write_sequences(path, documents, tokenizer=tokenizer, repo=lambda: "r", strategy="flat", length=64)
    return path


def test_a_file_of_single_tokens_is_refused_or_learned(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    path.write_text(
        json.dumps({"token_sequences": [[5], [6]], "vocab_size": 50257, "num_sequences": 2, "total_tokens": 2})
    )
    with pytest.raises(DataError):
        learned(path)


def test_torn_weights_of_a_base_are_told(tmp_path: Path, small: TextTokenizer) -> None:
    tokens = tiny(tmp_path, small)
    base = learned(tokens)[0].rename(tmp_path / "base")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TreeringError) as caught:
        learned(tokens, str(base))
    assert str(base) in caught.value.message


def test_a_training_without_end_is_refused(repo: Repo) -> None:
    repo.commit("one", a__py="x = 1\n")
    with pytest.raises(UsageError, match="`minutes`"):
        place(repo, minutes=float("inf"))
