"""The real embedding model of the pack, and the matrix its vectors lie in."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treering import modelpack
from treering.errors import ModelError, StoreError
from treering.vectors.embedder import embed, load_embedder
from treering.vectors.flat import FlatMatrix
from treering.vectors.minilm import GRAPH, SPECIAL, MiniLM

TEXTS = ["", "fix", "Add energy market dispute RPC", "a " * 300, "é 日本 🎉", "settle the ledger\n" * 9]

CARD = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
"""The example of the model card, whose similarities it states."""


def matrix(rows: int, dimensions: int = 4, *, seed: int = 7) -> Any:
    made = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


# the model -------------------------------------------------------------------------------------------------------


def test_the_model_cards_sentences_have_the_model_cards_similarities(minilm: Any) -> None:
    weather, sunny, stadium = embed(minilm, CARD)
    assert weather @ sunny == pytest.approx(0.6660, abs=1e-4)
    assert weather @ stadium == pytest.approx(0.1046, abs=1e-4)
    assert sunny @ stadium == pytest.approx(0.1411, abs=1e-4)


def test_the_model_gives_the_vectors_that_sentence_transformers_gives(minilm: Any) -> None:
    other = load_embedder(str(modelpack.packed("minilm.weights").parent))
    other.model.max_seq_length = minilm.length + SPECIAL  # type: ignore[attr-defined]
    texts = [*TEXTS, *CARD]
    assert (embed(other, texts) * embed(minilm, texts)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert other.dimensions == minilm.dimensions == 384


def test_the_graph_that_is_shipped_is_the_one_that_is_made() -> None:
    assert runpy.run_path("benchmarks/minilm_graph.py")["graph"]() == GRAPH.read_bytes()


def test_every_vector_has_length_one_that_of_the_empty_text_too(minilm: Any) -> None:
    vectors = embed(minilm, TEXTS)
    assert vectors.shape == (len(TEXTS), minilm.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_text_has_the_same_vector_in_whatever_batch_it_is(minilm: Any) -> None:
    together = embed(minilm, TEXTS)
    alone = np.concatenate([embed(minilm, [text]) for text in TEXTS])
    small = embed(MiniLM(batch_tokens=256), TEXTS)
    backwards = embed(minilm, TEXTS[::-1])[::-1]
    for other in (alone, small, backwards):
        assert np.abs(together - other).max() < 1e-5


def test_every_text_is_in_one_batch_and_no_batch_is_larger_than_asked() -> None:
    texts = ["one two three"] * 60 + ["long " * 100] * 3 + ["word"]
    small = MiniLM(batch_tokens=256)
    seen: list[int] = []
    for positions, rows in small.batches(texts):
        assert rows.shape == (len(positions), small.dimensions)
        longest = max(len(small.tokenizer.encode(texts[position]).ids) for position in positions)
        assert len(positions) * longest <= 256
        seen += positions
    assert sorted(seen) == list(range(len(texts)))


def test_no_texts_have_no_vectors(minilm: Any) -> None:
    assert embed(minilm, []).shape == (0, 384)


def test_what_comes_after_256_tokens_does_not_count(minilm: Any) -> None:
    one, other = embed(minilm, ["word " * 254 + "alpha", "word " * 254 + "omega alpha beta"])
    assert one == pytest.approx(other, abs=1e-6)
    assert embed(minilm, ["word " * 200 + "alpha"])[0] != pytest.approx(embed(minilm, ["word " * 200])[0], abs=1e-3)


def test_the_built_in_model_answers_to_its_full_name(minilm: Any) -> None:
    assert load_embedder("sentence-transformers/all-MiniLM-L6-v2").fingerprint == minilm.fingerprint


def test_a_model_file_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        modelpack.PACK, "minilm.weights", modelpack.PackFile("no-such-package", "model.safetensors", "0")
    )
    with pytest.raises(ModelError, match="`no-such-package` is not installed") as caught:
        load_embedder("all-MiniLM-L6-v2")
    assert "models.txt" in caught.value.hint


def test_a_model_file_that_is_not_the_one_we_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = modelpack.PACK["minilm.tokenizer"]
    other = modelpack.PackFile(known.package, known.path, "0" * 64)
    monkeypatch.setitem(modelpack.PACK, "minilm.tokenizer", other)
    with pytest.raises(ModelError, match="is not the file we know"):
        load_embedder("all-MiniLM-L6-v2")


def test_a_model_file_is_checked_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, copy = modelpack.packed("minilm.tokenizer"), tmp_path / "tokenizer.json"
    copy.write_bytes(real.read_bytes())
    entry = modelpack.PACK["minilm.tokenizer"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(modelpack.PACK, "copy", modelpack.PackFile(entry.package, str(copy), entry.sha256))
    assert modelpack.packed("copy") == modelpack.packed("copy") == copy
    copy.write_bytes(real.read_bytes()[:-1] + b" ")
    with pytest.raises(ModelError, match="is not the file we know"):
        modelpack.packed("copy")


# the matrix ------------------------------------------------------------------------------------------------------


def test_appended_rows_come_back_exactly(tmp_path: Path) -> None:
    flat, rows = FlatMatrix(tmp_path / "v", 4), matrix(7)
    flat.append(0, rows[:3])
    flat.append(3, rows[3:])
    assert flat.rows(7).tolist() == rows.tolist()
    assert flat.rows(2).tolist() == rows[:2].tolist()
    assert FlatMatrix(tmp_path / "v", 4).rows(7).tolist() == rows.tolist()


def test_a_matrix_of_no_rows_needs_no_file(tmp_path: Path) -> None:
    assert FlatMatrix(tmp_path / "v", 4).rows(0).shape == (0, 4)
    assert not (tmp_path / "v").exists()


def test_rows_that_were_never_named_are_overwritten(tmp_path: Path) -> None:
    flat, rows, lost = FlatMatrix(tmp_path / "v", 4), matrix(4), matrix(5, seed=8)
    flat.append(0, rows[:2])
    flat.append(2, lost)  # a kill comes here: the database never names these
    flat.append(2, rows[2:])
    assert flat.rows(4).tolist() == rows.tolist()


def test_rows_torn_by_a_kill_are_overwritten(tmp_path: Path) -> None:
    flat, rows = FlatMatrix(tmp_path / "v", 4), matrix(4)
    flat.append(0, rows[:2])
    with flat.path.open("ab") as file:
        file.write(b"\xff" * 7)
    flat.append(2, rows[2:])
    assert flat.rows(4).tolist() == rows.tolist()


def test_a_file_with_fewer_rows_than_the_index_names_says_what_to_do(tmp_path: Path) -> None:
    flat = FlatMatrix(tmp_path / "v", 4)
    flat.append(0, matrix(3))
    flat.path.write_bytes(flat.path.read_bytes()[:-1])
    for broken in (lambda: flat.rows(3), lambda: flat.append(3, matrix(1))):
        with pytest.raises(StoreError, match="is torn") as caught:
            broken()
        assert "--rebuild" in caught.value.hint
    assert flat.rows(2).tolist() == matrix(3)[:2].tolist()


def test_a_file_that_is_gone_says_what_to_do(tmp_path: Path) -> None:
    flat = FlatMatrix(tmp_path / "v", 4)
    for broken in (lambda: flat.rows(3), lambda: flat.append(3, matrix(1))):
        with pytest.raises(StoreError, match="is torn") as caught:
            broken()
        assert "--rebuild" in caught.value.hint


def test_the_memory_map_cannot_be_written_through(tmp_path: Path) -> None:
    flat = FlatMatrix(tmp_path / "v", 4)
    flat.append(0, matrix(1))
    with pytest.raises(ValueError, match="read-only"):
        flat.rows(1)[0, 0] = 9


def test_a_scan_of_the_matrix_is_brute_force_exactly(tmp_path: Path) -> None:
    flat, rows, query = FlatMatrix(tmp_path / "v", 384), matrix(500, 384), matrix(1, 384, seed=9)[0]
    flat.append(0, rows)
    cosines = flat.rows(500) @ query
    assert (cosines == rows @ query).all()
    assert np.argsort(-cosines)[:10].tolist() == np.argsort(-(rows.astype(np.float64) @ query))[:10].tolist()
