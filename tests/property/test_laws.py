"""What holds for every input: nothing is lost, nothing is changed on the way there and back, order is decided."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from histories import LetterModel, added, name_of, remember, told
from treering.files import read_json_lines, write_json_lines
from treering.lm.data import Blocks, Stream, sequences, split
from treering.lm.evaluate import ByteModel
from treering.pipeline.index import index_vectors
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.fusion import z_scores
from treering.search.history import History
from treering.search.lexical import K1, B, Lexical, Scope, asked_words
from treering.store import Store
from treering.text.document import FIELDS, word_counts
from treering.text.words import LONGEST, forms, words, written
from treering.tokens.encoding import Encoder
from treering.tokens.pack import blocks
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import Commit, Corpus, Record, Span
from treering.vectors.embedder import MAX_PARTS, cut

END_OF_TEXT = "<|endoftext|>"
PIECES = (END_OF_TEXT, "<COMMIT>", "<|", " ", "\r\n", "a")
EOS = 0

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""No deadline: the machine may be busy. A fixture that examples share is one that each of them fills anew."""

documents_of_ids = st.lists(st.lists(st.integers(1, 60_000), max_size=30), max_size=12)
lengths = st.integers(1, 40)
texts = st.text(max_size=200)
code = st.text("aZ_9. é日\nÜß", max_size=60)
"""Short texts in which words begin, end and are made of parts at every turn."""


# tokens ----------------------------------------------------------------------------------------------------------


@quick
@given(documents_of_ids, lengths)
def test_packing_loses_no_token_and_fills_every_block_but_the_last(documents: list[list[int]], length: int) -> None:
    made = list(blocks(((*document, EOS) for document in documents), length))
    assert [token for block in made for token in block] == [
        token for document in documents for token in (*document, EOS)
    ]
    assert all(len(block) == length for block in made[:-1])
    assert all(0 < len(block) <= length for block in made[-1:])


def corpus(documents: list[list[int]], repeats: set[int]) -> tuple[Corpus, Any]:
    spans = tuple(
        Span(str(number), len(document), 1, "0" if number in repeats else None)
        for number, document in enumerate(documents)
    )
    ids = np.array([token for document in documents for token in (*document, EOS)], dtype=np.uint16)
    told = Corpus(
        vocab_size=60_001, num_sequences=1, total_tokens=len(ids), sequence_length=8, repo="", strategy="flat",
        tokenizer="gpt2", tokenizer_fingerprint="", added_tokens=(), eos_id=EOS, documents=spans,
    )  # fmt: skip
    return told, ids


@quick
@given(
    st.lists(st.lists(st.integers(1, 60_000), min_size=1, max_size=20), min_size=2, max_size=30),
    st.sets(st.integers(2, 29)),
)
def test_a_split_takes_each_document_once_older_ones_for_training(
    documents: list[list[int]], repeats: set[int]
) -> None:
    data = split(*corpus(documents, repeats))
    unique = [document for number, document in enumerate(documents) if number not in repeats]
    later = (*data.validation.documents, *data.held_out.documents)
    cut = len(unique) - len(later)
    assert 0 < cut == data.train_documents < len(unique)
    assert data.train.read(0, len(data.train)).tolist() == [
        token for document in unique[:cut] for token in (*document, EOS)
    ]
    assert [document.tolist() for document in later] == unique[cut:]
    assert data.duplicates == len(documents) - len(unique)


@quick
@given(st.lists(st.integers(0, 60_000), min_size=2, max_size=300), lengths)
def test_training_predicts_every_token_but_the_first_exactly_once(ids: list[int], length: int) -> None:
    blocks = Blocks(Stream(np.array(ids), np.array([0]), np.array([len(ids)])), length)
    made = [blocks[number] for number in range(len(blocks))]
    assert [token for block in made for token in block[1:].tolist()] == ids[1:]
    assert [token for block in made for token in block[:-1].tolist()] == ids[:-1]
    assert all(2 <= len(block) <= length + 1 for block in made)


@quick
@given(st.integers(1, 400), st.integers(0, 2**63), st.integers(0, 5), st.integers(0, 2000))
def test_an_epoch_is_a_permutation_decided_by_its_numbers(count: int, seed: int, epoch: int, start: int) -> None:
    order = list(islice(sequences(count, seed), max((epoch + 1) * count, start + 20)))
    assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert list(islice(sequences(count, seed, start), 20)) == order[start : start + 20]


# the tokenizer ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2() -> TextTokenizer:
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def marked() -> TextTokenizer:
    return load_tokenizer("gpt2", ("<COMMIT>", "<AUTHOR>"))


@pytest.fixture(scope="module")
def encoders(gpt2: TextTokenizer, marked: TextTokenizer) -> list[Encoder]:
    made = [Encoder(gpt2), Encoder(marked), Encoder(load_tokenizer("smollm2-135m", ("<COMMIT>", "<AUTHOR>")))]
    assert [one.why_not for one in made] == ["", "", ""]
    return made


@quick
@given(texts | st.lists(st.sampled_from(PIECES) | texts).map("".join))
@example(END_OF_TEXT)
@example(f"a message that says {END_OF_TEXT} and goes on")
@example("\0\x7f\u200d\ufeff \u00a0 don't  \n\n")
def test_a_text_comes_back_from_its_tokens_unchanged(gpt2: TextTokenizer, marked: TextTokenizer, text: str) -> None:
    for tokenizer in (gpt2, marked):
        (ids,) = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_id not in ids
        assert all(0 <= token < tokenizer.vocab_size for token in ids)


@quick
@given(st.lists(texts | st.lists(st.sampled_from([*PIECES, "1", "\x04"]) | texts).map("".join), max_size=4))
def test_tiktoken_gives_the_ids_of_hugging_face(encoders: list[Encoder], many: list[str]) -> None:
    for encoder in encoders:
        made = encoder(many)
        assert [ids.tolist() for ids, _ in made] == encoder.tokenizer.encode(many)
        ends = [len(text.encode()) for text in many]
        assert all(starts.tolist() == sorted(starts) for _, starts in made)
        assert all(0 <= at < end for (_, starts), end in zip(made, ends, strict=True) for at in starts.tolist())


@quick
@given(st.lists(texts, max_size=5))
def test_texts_encoded_together_are_encoded_as_alone(gpt2: TextTokenizer, many: list[str]) -> None:
    assert gpt2.encode(many) == [gpt2.encode([text])[0] for text in many]


# words -----------------------------------------------------------------------------------------------------------


@quick
@given(texts | code)
def test_words_are_lower_case_and_never_empty(text: str) -> None:
    made = list(words(text))
    assert all(word and word == word.lower() for word in made)


@quick
@given(st.text("abcXYZ_019", min_size=1, max_size=LONGEST))
def test_a_word_of_code_is_a_word_of_itself_however_it_is_cased(name: str) -> None:
    assert next(words(name)) == name.lower()
    assert next(words(name.lower())) == name.lower()
    assert next(words(name.upper())) == name.lower()


@quick
@given(texts | code, texts | code)
def test_words_of_texts_side_by_side_are_the_words_of_both(one: str, other: str) -> None:
    assert list(words(f"{one} {other}")) == [*words(one), *words(other)]


@quick
@given(texts | code)
def test_words_counted_are_the_words_that_come(text: str) -> None:
    assert found_by(written(text)) == Counter(words(text))


def found_by(counts: Mapping[str, int]) -> Counter[str]:
    """Words as they are written, as what they are found by."""
    found: Counter[str] = Counter()
    for word, count in counts.items():
        for form in forms(word):
            found[form] += count
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(tmp_path_factory.mktemp("store")) as opened, opened.writing("a test"):
        yield opened


def indexed(store: Store, *commits: Commit, merged_by: dict[int, int] | None = None) -> History:
    """Have these commits, and no others, in the index."""
    with store.writing("a test"), store.transaction():
        for table in ("documents", "vectors", "postings", "changes", "commits"):
            store.db.execute(f"DELETE FROM {table}")
    remember(store, commits, merged_by)
    return History(store)


@settings(quick, max_examples=40)
@given(st.text("abcXYZ_019. é日Üß\"'*-:()^", max_size=60))
@example("İstanbul")
@example("ΑΣ")
@example("naïve café")
@example('NOT "a" OR b*')
def test_every_word_of_a_text_finds_it(store: Store, text: str) -> None:
    history = indexed(store, told(1, text))
    for word in re.findall(r"\w+", text):
        for asked in (word, word.lower(), f'"{word}*'):
            assert Lexical(Scope(history, history.everything), asked_words(asked)).coverage()[0] > 0


# what a question may see -----------------------------------------------------------------------------------------

SAID = ("gate", "gates", "bridge", "oracle_rule", "oracleRule", "settle the gate", "the", "", "cli changes")
said = st.lists(st.sampled_from(SAID), max_size=4).map(" ".join)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Commit], dict[int, int]]:
    """A line of commits with messages and hunks of few words, and for some the later one that brought them."""
    count = draw(st.integers(1, 9))
    commits = [
        told(number, draw(said), patches=[added(f"src/{draw(st.sampled_from(SAID[:4]))}.py", draw(said), draw(said))])
        for number in range(1, count + 1)
    ]
    merged_by = {
        number: merge
        for number in range(1, count)
        if (merge := draw(st.none() | st.integers(number + 1, count))) is not None
    }
    return commits, merged_by


def brute_force(
    fields: Sequence[Sequence[Mapping[str, int]]], asked: Sequence[str], weights: Mapping[int, float]
) -> list[float]:
    """BM25 of every commit, by its formula: one text in which each field counts as often as its weight says."""
    lengths = [sum(weight * sum(of[field].values()) for field, weight in weights.items()) for of in fields]
    mean = sum(lengths) / len(lengths)
    holding = {word: sum(any(word in of[field] for field in weights) for of in fields) for word in asked}
    scores = []
    for of, length in zip(fields, lengths, strict=True):
        score = 0.0
        for word in asked:
            often = sum(weight * of[field].get(word, 0) for field, weight in weights.items())
            rarity = math.log(1 + (len(fields) - holding[word] + 0.5) / (holding[word] + 0.5))
            score += rarity * often * (K1 + 1) / (often + K1 * (1 - B + B * length / max(mean, 1e-9))) if often else 0
        scores.append(score)
    return scores


@settings(quick, max_examples=50)
@given(
    histories(),
    said,
    st.integers(1, 9),
    st.dictionaries(st.integers(0, len(FIELDS) - 1), st.sampled_from([0.5, 1, 2]), min_size=1),
)
def test_bm25_over_what_may_be_seen_is_bm25_by_its_formula(
    store: Store, made: tuple[list[Commit], dict[int, int]], query: str, seen: int, weights: dict[int, float]
) -> None:
    commits, merged_by = made
    history = indexed(store, *commits, merged_by=merged_by)
    mask = np.arange(len(history)) < seen
    fields = [
        [found_by(field) for field in word_counts(features, store.hunks(number))]
        for number, features in store.features()
    ][:seen]
    own = [fields[number][0].copy() for number in range(len(fields))]
    for number, merge in merged_by.items():
        if merge <= len(fields):
            fields[number - 1][0].update(own[merge - 1])
    asked = list(dict.fromkeys(words(query)))
    scores = Lexical(Scope(history, mask, merged_by=history.merged_by), asked).bm25(weights)
    assert scores[:seen].tolist() == pytest.approx(brute_force(fields, asked, weights))
    assert not scores[seen:].any()


@settings(quick, max_examples=30)
@given(histories(), said, st.integers(1, 8), st.booleans())
def test_nothing_that_comes_later_changes_an_answer(
    store: Store, tmp_path_factory: pytest.TempPathFactory, made: tuple[list[Commit], dict[int, int]], query: str,
    seen: int, by_meaning: bool,
) -> None:  # fmt: skip
    commits, merged_by = made
    model = LetterModel() if by_meaning else None
    answers = []
    for known in (commits, commits[:seen]):
        indexed(store, *known, merged_by={one: merge for one, merge in merged_by.items() if merge <= len(known)})
        if model:
            with store.writing("a test"):
                store.forget_vectors(model.fingerprint)
                index_vectors(store, lambda: model, Reporter())
        finder = Finder(store, model)
        asked = finder.ask(query, mask=finder.history.at(name_of(min(seen, len(known)))))
        answers.append({int(number): score for number, score in zip(asked.numbers, asked.scores, strict=True)})
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


# long texts ------------------------------------------------------------------------------------------------------


@quick
@given(
    st.lists(st.sampled_from(["a", "bb", "word", "-", "\n", " ", "  "]), max_size=120).map("".join), st.integers(1, 12)
)
def test_the_parts_of_a_text_lose_no_token_up_to_the_last_part(text: str, most: int) -> None:
    offsets = [match.span() for match in re.finditer(r"\w|-", text)]
    parts = cut(text, offsets, most)
    tokens = [re.findall(r"\w|-", part) for part in parts]
    assert all(part in text for part in parts)
    assert all(len(of) <= most for of in tokens)
    assert 1 <= len(parts) <= MAX_PARTS
    kept = [token for of in tokens for token in of]
    everything = re.findall(r"\w|-", text)
    assert kept == everything[: len(kept)]
    assert len(kept) == len(everything) or len(parts) == MAX_PARTS


# files -----------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(quick, max_examples=40)
@given(st.lists(st.dictionaries(st.text(max_size=8), values, max_size=5), min_size=1, max_size=6))
def test_json_lines_come_back_as_they_were_written(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    path = tmp_path / "lines.jsonl"
    write_json_lines(path, lines)
    assert list(read_json_lines(path, dict[str, Any])) == lines
    assert path.read_bytes().count(b"\n") == len(lines)


@settings(quick, max_examples=40)
@given(st.builds(Record))
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, record: Record) -> None:
    path = tmp_path / "records.jsonl"
    write_json_lines(path, [record])
    assert list(read_json_lines(path, Record)) == [record]
    assert list(msgspec.json.decode(path.read_bytes()))[:4] == [
        "commit_hash",
        "author_name",
        "author_email",
        "message_subject",
    ]


# scores ----------------------------------------------------------------------------------------------------------

scores = st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50).map(lambda many: np.array(many) / 1000)


@quick
@given(scores)
def test_z_scores_have_mean_zero_and_keep_the_order(raw: Any) -> None:
    made = z_scores(raw)
    assert made.shape == raw.shape
    assert made.mean() == pytest.approx(0, abs=1e-6)
    assert (np.diff(made[np.argsort(raw, kind="stable")]) >= 0).all()
    assert made.std() == pytest.approx(1) or not made.any()


@quick
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_no_text_costs_less_than_nothing_or_more_than_there_is(texts_of_bytes: list[bytes]) -> None:
    model = ByteModel()
    costs = [model.read(text) for text in texts_of_bytes]
    assert all(0 <= cost < math.inf for cost in costs)
    assert all((cost > 0) == bool(text) for cost, text in zip(costs, texts_of_bytes, strict=True))
