"""Real tokenizers from the model pack, and the two forms in which token documents are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repositories import Repo
from treering import learning, operations
from treering.errors import DataError, ModelError
from treering.report import Reporter
from treering.store import Store
from treering.text.strategies import STRATEGIES
from treering.tokens.pack import read_sequences, read_stream, write_sequences, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer, tokenized
from treering.types import Corpus, Document, Record, TokenDocument

MARKERS = ("<COMMIT>", "<AUTHOR>")
DOCUMENTS = (
    TokenDocument("a" * 40, (1, 2, 3), 5),
    TokenDocument("b" * 40, (), 0),
    TokenDocument("c" * 40, (50_000, 4), 7, duplicate_of="a" * 40),
)


@pytest.fixture(scope="module")
def gpt2() -> TextTokenizer:
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def marked() -> TextTokenizer:
    return load_tokenizer("gpt2", MARKERS)


def encoded(tokenizer: TextTokenizer, text: str) -> list[int]:
    (ids,) = tokenizer.encode([text])
    return ids


# tokenizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("<COMMIT>", [27, 9858, 36393, 29]),
        ("12345", [10163, 2231]),
        ("a\n\n  b", [64, 628, 220, 275]),
        ("", []),
    ],
)
def test_gpt2_gives_the_ids_that_gpt2_gives(gpt2: TextTokenizer, text: str, ids: list[int]) -> None:
    assert encoded(gpt2, text) == ids


def test_gpt2_has_its_known_size_and_end_of_text(gpt2: TextTokenizer) -> None:
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.added) == (50257, 50256, ())
    assert gpt2.decode([gpt2.eos_id]) == "<|endoftext|>"


def test_text_that_looks_like_an_end_of_text_stays_text(gpt2: TextTokenizer) -> None:
    ids = encoded(gpt2, "a<|endoftext|>b")
    assert gpt2.eos_id not in ids
    assert gpt2.decode(ids) == "a<|endoftext|>b"


def test_smollm2_splits_numbers_into_digits_and_is_kept_after_the_first_time() -> None:
    smollm2 = load_tokenizer("smollm2-135m")
    assert (smollm2.vocab_size, smollm2.eos_id) == (49152, 0)
    ids = encoded(smollm2, "port 8080")
    assert [smollm2.decode([token]) for token in ids] == ["port", " ", "8", "0", "8", "0"]
    kept = load_tokenizer("smollm2-135m")
    assert kept.fingerprint == smollm2.fingerprint
    assert encoded(kept, "port 8080, <|endoftext|>") == encoded(smollm2, "port 8080, <|endoftext|>")


def test_each_added_marker_is_one_id_that_vocab_size_counts(gpt2: TextTokenizer, marked: TextTokenizer) -> None:
    assert marked.vocab_size == gpt2.vocab_size + len(MARKERS)
    ids = [encoded(marked, marker) for marker in MARKERS]
    assert ids == [[50257], [50258]]
    assert all(token < marked.vocab_size for (token,) in ids)


def test_markers_are_one_id_wherever_they_stand_and_decode_to_themselves(marked: TextTokenizer) -> None:
    text = "<COMMIT> a1b2c3d\n<AUTHOR><COMMIT> x"
    ids = encoded(marked, text)
    assert [ids.count(token) for token in (50257, 50258)] == [2, 1]
    assert marked.decode(ids) == text


def test_other_text_is_the_same_with_and_without_markers(gpt2: TextTokenizer, marked: TextTokenizer) -> None:
    text = "def settle(order):\n\treturn 42  # é 日本 🎉\n"
    assert encoded(gpt2, text) == encoded(marked, text)


def test_markers_change_the_fingerprint(gpt2: TextTokenizer, marked: TextTokenizer) -> None:
    assert gpt2.fingerprint != marked.fingerprint
    assert gpt2.fingerprint == load_tokenizer("gpt2").fingerprint


def test_a_saved_tokenizer_gives_transformers_the_same_ids(marked: TextTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    marked.save(tmp_path)
    loaded: Any = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert len(loaded) == marked.vocab_size
    assert loaded.eos_token_id == marked.eos_id
    for text in ("<COMMIT> a1b2c3d\n<AUTHOR> Ada", "  don't \n\n x", "é 日本 🎉\r\n\tz", ""):
        ids = encoded(marked, text)
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
        assert loaded.decode(ids) == text


def test_a_saved_tokenizer_loads_again_with_its_markers(marked: TextTokenizer, tmp_path: Path) -> None:
    marked.save(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert (loaded.added, loaded.vocab_size, loaded.eos_id) == (marked.added, marked.vocab_size, marked.eos_id)
    assert loaded.fingerprint == marked.fingerprint
    assert encoded(loaded, "<COMMIT> <|endoftext|>") == encoded(marked, "<COMMIT> <|endoftext|>")


def test_saving_a_tokenizer_does_not_change_it(marked: TextTokenizer, tmp_path: Path) -> None:
    before = encoded(marked, "<|endoftext|>")
    marked.save(tmp_path)
    assert encoded(marked, "<|endoftext|>") == before


def test_a_folder_with_the_older_two_files_is_a_tokenizer(gpt2: TextTokenizer, tmp_path: Path) -> None:
    from treering.modelpack import packed

    (tmp_path / "vocab.json").write_bytes(packed("gpt2.vocab").read_bytes())
    (tmp_path / "merges.txt").write_bytes(packed("gpt2.merges").read_bytes())
    assert load_tokenizer(str(tmp_path)).fingerprint == gpt2.fingerprint


@pytest.mark.parametrize("name", ["nobody/no-such-tokenizer", "./no/folder", "no such name!"])
def test_an_unknown_tokenizer_is_refused_with_those_that_are_here(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(name)
    assert name in caught.value.message
    assert "gpt2, smollm2-135m" in caught.value.hint


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json") as caught:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in caught.value.message


def test_documents_are_encoded_in_order_with_their_bytes_and_repeats(gpt2: TextTokenizer) -> None:
    texts = [f"commit {number} é\n" for number in range(600)]
    documents = [
        (record(number), Document(record(number).commit_hash, "flat", text), "x" if number == 5 else None)
        for number, text in enumerate(texts)
    ]
    made = list(tokenized(iter(documents), gpt2))
    assert [one.commit_hash for one, _ in made] == [token.commit_hash for _, token in made]
    assert [gpt2.decode(token.tokens) for _, token in made] == texts
    assert [token.bytes for _, token in made] == [len(text.encode()) for text in texts]
    assert [number for number, (_, token) in enumerate(made) if token.duplicate_of] == [5]


def record(number: int) -> Record:
    return Record(
        commit_hash=f"{number:040x}", author_name="", author_email="", message_subject="", message_body="", branch="",
        is_merge=False, files_added=(), files_modified=(), files_deleted=(), insertions=0, deletions=0, diff_summary="",
        stats={}, commit_timestamp=0, parent_hashes=(),
    )  # fmt: skip


# the two forms ---------------------------------------------------------------------------------------------------

ALL_IDS = [1, 2, 3, 50256, 50256, 50_000, 4, 50256]


def sequences(path: Path, tokenizer: TextTokenizer, length: int = 3) -> Corpus:
    return write_sequences(
        path, iter(DOCUMENTS), tokenizer=tokenizer, repo=lambda: "the-block", strategy="flat", length=length
    )


def stream(folder: Path, tokenizer: TextTokenizer) -> Corpus:
    return write_stream(folder, iter(DOCUMENTS), tokenizer=tokenizer, repo="the-block", strategy="flat", length=3)


def described(corpus: Corpus) -> None:
    assert (corpus.vocab_size, corpus.num_sequences, corpus.total_tokens, corpus.sequence_length) == (50259, 3, 8, 3)
    assert (corpus.repo, corpus.strategy, corpus.tokenizer, corpus.eos_id) == ("the-block", "flat", "gpt2", 50256)
    assert corpus.added_tokens == MARKERS
    assert [(span.commit_hash, span.tokens, span.bytes, span.duplicate_of) for span in corpus.documents] == [
        (one.commit_hash, len(one.tokens), one.bytes, one.duplicate_of) for one in DOCUMENTS
    ]


def test_sequences_come_back_as_they_were_written(marked: TextTokenizer, tmp_path: Path) -> None:
    written = sequences(tmp_path / "sequences.json", marked)
    described(written)
    corpus, ids = read_sequences(tmp_path / "sequences.json")
    assert corpus == written
    assert ids.tolist() == ALL_IDS


def test_sequences_have_the_seeds_keys_first_and_its_shape(marked: TextTokenizer, tmp_path: Path) -> None:
    sequences(tmp_path / "sequences.json", marked)
    content = json.loads((tmp_path / "sequences.json").read_text())
    assert list(content)[:4] == ["token_sequences", "vocab_size", "num_sequences", "total_tokens"]
    assert content["token_sequences"] == [[1, 2, 3], [50256, 50256, 50000], [4, 50256]]


def test_a_stream_comes_back_as_it_was_written(marked: TextTokenizer, tmp_path: Path) -> None:
    written = stream(tmp_path / "tokens", marked)
    described(written)
    corpus, ids = read_stream(tmp_path / "tokens")
    assert corpus == written
    assert ids.tolist() == ALL_IDS
    assert ids.dtype == np.uint16
    assert (tmp_path / "tokens" / "tokens.bin").read_bytes() == np.array(ALL_IDS, dtype="<u2").tobytes()


def test_both_forms_hold_the_same(marked: TextTokenizer, tmp_path: Path) -> None:
    assert sequences(tmp_path / "sequences.json", marked) == stream(tmp_path / "tokens", marked)


def test_a_file_with_the_seeds_four_keys_only_is_read(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    content = {"token_sequences": [[5, 6, 7], [8, 9]], "vocab_size": 50257, "num_sequences": 2, "total_tokens": 5}
    path.write_text(json.dumps(content))
    corpus, ids = read_sequences(path)
    assert ids.tolist() == [5, 6, 7, 8, 9]
    assert (corpus.vocab_size, corpus.sequence_length, corpus.tokenizer, corpus.eos_id) == (50257, 3, "", -1)
    assert [(span.tokens, span.bytes) for span in corpus.documents] == [(3, 0), (2, 0)]


def test_a_torn_stream_is_refused_with_a_way_out(marked: TextTokenizer, tmp_path: Path) -> None:
    stream(tmp_path / "tokens", marked)
    binary = tmp_path / "tokens" / "tokens.bin"
    whole = binary.read_bytes()
    for torn in (whole[:-1], whole[:-2], b"", whole + b"\0\0"):
        binary.write_bytes(torn)
        with pytest.raises(DataError, match=r"tokens\.bin is torn") as caught:
            read_stream(tmp_path / "tokens")
        assert "delete" in caught.value.hint
    binary.unlink()
    with pytest.raises(DataError, match=r"tokens\.bin is torn"):
        read_stream(tmp_path / "tokens")


@pytest.mark.parametrize("header", [None, "", "{", "[]", '{"vocab_size": 5}'])
def test_a_stream_without_a_whole_header_is_refused(marked: TextTokenizer, tmp_path: Path, header: str | None) -> None:
    stream(tmp_path / "tokens", marked)
    path = tmp_path / "tokens" / "header.json"
    path.unlink()
    if header is not None:
        path.write_text(header)
    with pytest.raises(DataError, match=r"header\.json"):
        read_stream(tmp_path / "tokens")


def seed_file(tmp_path: Path, **changes: object) -> Path:
    content = {"token_sequences": [[1, 2]], "vocab_size": 100, "num_sequences": 1, "total_tokens": 2} | changes
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("ids", "outside"), [([1, 100], "100"), ([50274], "50274"), ([-1, 2], "-1")])
def test_an_id_outside_the_vocabulary_is_refused_not_clamped(tmp_path: Path, ids: list[int], outside: str) -> None:
    path = seed_file(tmp_path, token_sequences=[ids], total_tokens=len(ids))
    with pytest.raises(DataError, match=rf"the id {outside}, outside its vocab_size 100") as caught:
        read_sequences(path)
    assert str(path) in caught.value.message


def test_a_file_that_miscounts_its_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 2 tokens and says 3"):
        read_sequences(seed_file(tmp_path, total_tokens=3))


@pytest.mark.parametrize("ids", [[], [[]], [[], []]])
def test_a_file_without_tokens_is_refused(tmp_path: Path, ids: list[list[int]]) -> None:
    with pytest.raises(DataError, match="holds no tokens"):
        read_sequences(seed_file(tmp_path, token_sequences=ids, total_tokens=0))


@pytest.mark.parametrize(
    "ids", [None, "text", [1, 2], [["1"]], [[1.5]], [[2**70]]], ids=["null", "text", "flat", "strings", "half", "huge"]
)
def test_sequences_that_are_no_lists_of_ids_are_refused(tmp_path: Path, ids: object) -> None:
    with pytest.raises(DataError, match="is no token file"):
        read_sequences(seed_file(tmp_path, token_sequences=ids))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"token_sequences": [[1,'])
def test_a_torn_or_empty_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "torn.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"torn\.json") as caught:
        read_sequences(path)
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_sequences(tmp_path / "nowhere.json")


# a history -------------------------------------------------------------------------------------------------------


def test_a_history_is_tokenised_whole_by_every_strategy_and_once_by_each(story: Repo, gpt2: TextTokenizer) -> None:
    for strategy in STRATEGIES:
        flags: dict[str, dict[str, object]] = {"train": {"model": "scratch"}, "tokens": {"strategy": strategy}}
        where = operations.place(story.path, None, flags)
        folder, corpus = learning.tokenize(where, Reporter())
        made = (folder / "header.json").stat().st_mtime_ns
        assert learning.tokenize(where, Reporter()) == (folder, corpus)
        assert (folder / "header.json").stat().st_mtime_ns == made

        _, ids = read_stream(folder)
        with Store.existing(where.folder) as store:
            hashes = store.order()
        texts = gpt2.decode(ids.tolist()).split("<|endoftext|>")[:-1]
        assert [span.commit_hash for span in corpus.documents] == hashes
        assert [len(text.encode()) for text in texts] == [span.bytes for span in corpus.documents]
        assert all(name[:7] in text for name, text in zip(hashes, texts, strict=True))
        assert corpus.strategy == strategy
        assert any("@@ -" in text for text in texts) == (strategy == "diff-aware")
