"""Real tokenizers from the model pack, and the two forms in which token documents are kept."""

import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from repositories import Repo
from treering import learning, opening
from treering.errors import DataError, ModelError
from treering.files import read_json
from treering.pipeline.tokenize import CARD, Dataset, token_documents
from treering.report import Reporter
from treering.store import Store
from treering.text.strategies import STRATEGIES, Telling
from treering.tokens.encoding import BATCH, WORKERS, Encoder, tokenized
from treering.tokens.pack import read_sequences, read_stream, write_sequences, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import Amount, Content, Corpus, Document, Record, TokenDocument

MARKERS = ("<COMMIT>", "<AUTHOR>")
DOCUMENTS = (
    TokenDocument("a" * 40, (1, 2, 3), 5),
    TokenDocument("b" * 40, (), 0),
    TokenDocument("c" * 40, (50_000, 4), 7, duplicate_of="a" * 40, group="d" * 40),
)


@pytest.fixture(scope="module")
def gpt2() -> TextTokenizer:
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def marked() -> TextTokenizer:
    return load_tokenizer("gpt2", MARKERS)


@cache
def encoder(name: str, markers: tuple[str, ...] = ()) -> Encoder:
    return Encoder(load_tokenizer(name, markers))


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


def test_smollm2_splits_numbers_into_digits_and_is_kept_after_the_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
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
        (record(number), Document(f"{number:040x}", "flat", text, duplicate_of="x" if number == 5 else None))
        for number, text in enumerate(texts)
    ]
    made = list(tokenized(iter(documents), Encoder(gpt2)))
    assert [one.commit_hash for one, _ in made] == [token.commit_hash for _, token in made]
    assert [gpt2.decode(token.tokens) for _, token in made] == texts
    assert [token.bytes for _, token in made] == [len(text.encode()) for text in texts]
    assert [number for number, (_, token) in enumerate(made) if token.duplicate_of] == [5]


def test_a_stream_that_nobody_reads_to_its_end_ends_at_once(gpt2: TextTokenizer) -> None:
    read = 0

    def endless() -> Iterator[tuple[Record, Document]]:
        nonlocal read
        while True:
            read += 1
            yield record(read), Document(f"{read:040x}", "flat", "text")

    made = tokenized(endless(), Encoder(gpt2))
    assert next(made)[1].tokens.tolist() == encoded(gpt2, "text")  # type: ignore[attr-defined]  # an array
    made.close()
    assert read <= BATCH * (WORKERS + 1)


def test_an_error_in_the_middle_of_a_history_is_told(gpt2: TextTokenizer) -> None:
    def torn() -> Iterator[tuple[Record, Document]]:
        yield from ((record(number), Document("", "flat", "text")) for number in range(BATCH * 2))
        raise DataError("torn")

    with pytest.raises(DataError, match="torn"):
        list(tokenized(torn(), Encoder(gpt2)))


@pytest.mark.parametrize("name", ["gpt2", "plain"])
def test_each_token_is_counted_where_it_begins(gpt2: TextTokenizer, name: str) -> None:
    # Three tokens for the sign, of which the first begins in the message: it and its bytes are whole there.
    parts: tuple[tuple[Content, int], ...] = (("message", len("größe 日 \n".encode())), ("hunks", 4), ("message", 4))
    document = Document("", "flat", "größe 日 \n a b\nxyz", parts)
    tokenizer = gpt2 if name == "gpt2" else TextTokenizer(name, prefixed(gpt2), "<|endoftext|>")
    ((_, made),) = tokenized([(record(1), document)], Encoder(tokenizer))
    assert sum(amount.tokens for amount in made.content.values()) == len(made.tokens)
    assert made.content["hunks"] == Amount(4, len(encoded(tokenizer, " a b")))
    assert made.content["message"].bytes == made.bytes - 4


def record(number: int) -> Record:
    return Record(
        commit_hash=f"{number:040x}", author_name="", author_email="", message_subject="", message_body="", branch="",
        is_merge=False, files_added=(), files_modified=(), files_deleted=(), insertions=0, deletions=0, diff_summary="",
        stats={}, commit_timestamp=0, parent_hashes=(),
    )  # fmt: skip


# tiktoken in the place of Hugging Face ---------------------------------------------------------------------------


def prefixed(gpt2: TextTokenizer) -> Tokenizer:
    """GPT-2 as some of its descendants are: a space before every text."""
    made = Tokenizer.from_str(gpt2.backend.to_str())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


def lowercased() -> Tokenizer:
    made = letters([("a", "b")])
    made.normalizer = normalizers.Lowercase()
    return made


def letters(merges: list[tuple[str, str]], order: Sequence[str] = (), **settings: Any) -> Tokenizer:
    """A tokenizer of all bytes and some merges."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(order or [first + second for first, second in merges])]
    model = models.BPE({token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges, **settings)
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m"])
@pytest.mark.parametrize("markers", [(), MARKERS])
def test_tiktoken_stands_in_for_the_packed_tokenizers(name: str, markers: tuple[str, ...]) -> None:
    assert encoder(name, markers).why_not == ""


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m"])
def test_every_character_is_encoded_as_hugging_face_does(name: str) -> None:
    told = {"Cs": 0, "Lo": 97, "Co": 997, "Cn": 997}  # of letters without case, and of what is no character, some
    chars = [
        char
        for char in map(chr, range(0x110000))
        if (step := told.get(unicodedata.category(char), 1)) and ord(char) % step == 0
    ]
    texts = [f"a{char}b {char}{char}1{char}!{char}  {char}'{char}s" for char in chars]
    assert len(texts) > 19_000
    same(encoder(name), texts)


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m"])
def test_a_million_of_one_character_is_encoded_as_hugging_face_does(name: str) -> None:
    same(encoder(name), [char * 1_000_000 for char in (" ", "a")] + [" \t" * 4000 + "x"] * 2 + ["é" * 100_000])


def same(encoder: Encoder, texts: list[str]) -> None:
    assert encoder.why_not == ""
    wrong = [
        text[:40]
        for text, (ids, _), right in zip(texts, encoder(texts), encoder.tokenizer.encode(texts), strict=True)
        if ids.tolist() != right
    ]
    assert wrong == []


def test_what_looks_like_the_mark_between_two_texts_is_text() -> None:
    from treering.tokens.bpe import _SEPARATOR

    same(encoder("gpt2"), ["one", f"two{_SEPARATOR}three", _SEPARATOR, "", "four"])


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: letters([("b", "c"), ("a", "b"), ("ab", "c")]), "its merges do not make all of its tokens"),
        (lambda: letters([("b", "c"), ("a", "b")], order=("ab", "bc")), "its ids are not in the order of its merges"),
        (lambda: letters([("a", "b")], dropout=0.1), "it is no plain BPE"),
        (lambda: letters([("a", "b")], continuing_subword_prefix=""), ""),
        (lambda: letters([("a", "b")], end_of_word_suffix="</w>"), "it marks where words begin or end"),
        (lambda: letters([("a", "b")], order=("ab", "xyz"), ignore_merges=True), "it has tokens that no merge makes"),
        (lambda: lowercased(), "its texts are normalised first"),
        (lambda: prefixed(load_tokenizer("gpt2")), "its texts are split in another way"),
        (lambda: Tokenizer(models.WordLevel({"a": 0}, "a")), "its texts are split in another way"),
    ],
)
def test_a_tokenizer_whose_ids_could_differ_is_left_to_hugging_face(made: Callable[[], Tokenizer], why: str) -> None:
    tokenizer = TextTokenizer("own", made(), "a")
    encoder = Encoder(tokenizer)
    assert encoder.why_not == why
    if "dropout" not in str(tokenizer.backend.model) and why != "it is no plain BPE":
        texts = ["abc bc ab xyz", "A b", ""]
        assert [ids.tolist() for ids, _ in encoder(texts)] == tokenizer.encode(texts)


@pytest.mark.parametrize("markers", [("<A>", "<A><B>"), ("<A>x", "x<B>"), ("x<|endoftext|>",), ("<|end",)])
def test_markers_that_share_letters_are_left_to_hugging_face(markers: tuple[str, ...]) -> None:
    encoder = Encoder(load_tokenizer("gpt2", markers))
    assert "overlaps another" in encoder.why_not
    texts = [f"{one} a{other}{one}<|endoftext|>" for one in markers for other in markers]
    assert [ids.tolist() for ids, _ in encoder(texts)] == encoder.tokenizer.encode(texts)


def test_a_text_that_is_normalised_already_needs_no_normaliser() -> None:
    made = letters([("a", "b")])
    made.normalizer = normalizers.NFC()
    same(Encoder(TextTokenizer("own", made, "a")), ["ab é ab", "ab e\u0301 ab", "\u212b"])


def test_what_encodes_is_told_where_it_is_not_tiktoken(gpt2: TextTokenizer) -> None:
    said = io.StringIO()
    tokenizer = TextTokenizer("own", prefixed(gpt2), "<|endoftext|>")
    list(token_documents([record(1)], "flat", tokenizer, Telling(), Reporter(out=said, verbose=True)))
    list(token_documents([record(1)], "flat", gpt2, Telling(), Reporter(out=said, verbose=True)))
    assert said.getvalue() == (
        "encoding with Hugging Face tokenizers, not tiktoken: its texts are split in another way\n"
    )


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
    assert [
        (span.commit_hash, span.tokens, span.bytes, span.duplicate_of, span.group) for span in corpus.documents
    ] == [(one.commit_hash, len(one.tokens), one.bytes, one.duplicate_of, one.group) for one in DOCUMENTS]


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


def test_the_hash_is_of_the_ids_and_of_the_table_of_documents(marked: TextTokenizer, tmp_path: Path) -> None:
    written = stream(tmp_path / "tokens", marked)
    table = json.dumps(
        json.loads((tmp_path / "tokens" / "header.json").read_text())["documents"], separators=(",", ":")
    )
    ids = (tmp_path / "tokens" / "tokens.bin").read_bytes()
    assert written.sha256 == hashlib.sha256(ids + table.encode()).hexdigest()


def test_a_stream_of_before_there_were_groups_and_hashes_is_read(marked: TextTokenizer, tmp_path: Path) -> None:
    stream(tmp_path, marked)
    header = json.loads((tmp_path / "header.json").read_text())
    del header["sha256"]
    for span in header["documents"]:
        del span["group"]
    (tmp_path / "header.json").write_text(json.dumps(header))
    corpus, _ = read_stream(tmp_path)
    assert (corpus.sha256, {span.group for span in corpus.documents}) == ("", {""})


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
        where = opening.place(story.path, None, flags)
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


def test_the_data_card_tells_what_the_tokens_are_made_of_and_nothing_of_when(story: Repo, tmp_path: Path) -> None:
    flags: dict[str, dict[str, object]] = {"train": {"model": "scratch"}, "tokens": {"strategy": "diff-aware"}}
    places = [opening.place(story.path, tmp_path / name, flags) for name in ("one", "two")]
    (folder, corpus), (other, _) = [learning.tokenize(where, Reporter()) for where in places]
    assert (folder / CARD).read_bytes() == (other / CARD).read_bytes()
    card = read_json(folder / CARD, Dataset)
    assert (card.sha256, card.tokens, card.documents) == (corpus.sha256, corpus.total_tokens, len(corpus.documents))
    assert card.commits == len(corpus.documents)
    assert sum(amount.bytes for amount in card.content.values()) == card.bytes
    assert sum(amount.tokens for amount in card.content.values()) + card.end_of_text == card.tokens
    assert card.content["hunks"].tokens > 0
    assert sum(card.repeats.values()) == sum(span.duplicate_of is not None for span in corpus.documents)
    (folder / CARD).unlink()  # as after a kill before the last write
    assert learning.tokenize(places[0], Reporter()) == (folder, corpus)
    assert (folder / CARD).read_bytes() == (other / CARD).read_bytes()


def test_each_merge_of_a_history_is_in_the_group_of_what_it_brought(story: Repo, tmp_path: Path) -> None:
    where = opening.place(story.path, tmp_path / "store", {"train": {"model": "scratch"}})
    _, corpus = learning.tokenize(where, Reporter())
    with Store.existing(where.folder) as store:
        brought = {record.commit_hash: record.merged_by or "" for record in store.records()}
    merges = set(brought.values()) - {""}
    assert merges
    assert {span.commit_hash: span.group for span in corpus.documents} == {
        name: name if name in merges else merge for name, merge in brought.items()
    }
