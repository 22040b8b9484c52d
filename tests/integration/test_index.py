"""From a real repository to an index that finds its commits, by words and by meaning."""

import io
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repositories import Repo
from treering import caring, finding, modelpack, opening, operations
from treering.errors import StoreError, UsageError
from treering.opening import Place
from treering.pipeline import index as index_stage
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.fusion import LEARNED, z_scores
from treering.store import Store
from treering.text.document import KINDS
from treering.types import Filters, Hit
from treering.vectors.embedder import embed, load_embedder


def place(repo: Repo, **flags: dict[str, object]) -> Place:
    return opening.place(repo.path, None, flags)


def found(repo: Repo, query: str, **flags: dict[str, object]) -> list[Hit]:
    return finding.search(place(repo, **flags), query, Reporter())


@pytest.fixture
def indexed(indexed_story: Repo, tmp_path: Path) -> Repo:
    return indexed_story.copied(tmp_path / "project")


@pytest.fixture
def unread(indexed: Repo) -> Repo:
    """The story before anything was read of it."""
    shutil.rmtree(place(indexed).folder)
    return indexed


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the embedding model is not installed."""
    monkeypatch.setitem(
        modelpack.PACK, "minilm.weights", modelpack.PackFile("no-such-package", "model.safetensors", "0")
    )


# what is found ---------------------------------------------------------------------------------------------------


def test_a_commit_whose_message_says_nothing_is_found_by_its_diff(indexed: Repo) -> None:
    (first, *_) = found(indexed, "dispute_rule_8")
    assert first.subject == "cli local changes"
    assert first.files == ("src/dispute.py",)
    assert first.commit_hash == indexed.git("log", "--format=%H", "--grep=cli local changes", "-1", "--skip=1")
    assert "identifiers: dispute_rule_8" in first.why


def test_a_commit_is_found_by_its_message_and_by_its_meaning(indexed: Repo) -> None:
    (first, *_) = found(indexed, "bring receipts across the gateway")
    assert first.subject == "Bridge receipts over the gateway"
    assert first.branch == "main"
    assert first.author == "Ada Lovelace"
    assert "meaning of the" in first.why


def test_a_commit_is_found_by_the_name_a_file_had_before(indexed: Repo) -> None:
    assert "Move the market" in [hit.subject for hit in found(indexed, "core/market.py")[:2]]
    assert "Move the market" in [hit.subject for hit in found(indexed, "src/market.py")[:3]]


def test_hits_come_best_first_and_no_more_than_asked_for(indexed: Repo) -> None:
    hits = found(indexed, "oracle rule", search={"limit": 5})
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.commit_hash for hit in hits}) == 5


def test_the_dense_leg_agrees_with_brute_force(indexed: Repo, minilm: Any) -> None:
    query = "zeppelin aviation"
    with Store.existing(place(indexed).folder) as store:
        finder = Finder(store, minilm)
        hits = finder.search(query, limit=100, filters=Filters(include_merges=True))
        assert finder.dense is not None
        cosines = finder.dense.ask(query)
        asked = embed(minilm, [query])[0]
        near: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
        for record in index_stage.embedded_records(store, minilm):
            assert isinstance(record["embeddings"], dict)
            for name, vector in record["embeddings"].items():
                of_kind = near[name.partition("-")[0]]  # a long text has parts, message-2 and so on: the nearest counts
                commit = str(record["commit_hash"])
                of_kind[commit] = max(of_kind.get(commit, -1.0), float(np.array(vector) @ asked))
        patches = {record.commit_hash: record.patch_id or record.commit_hash for record in store.records()}
    for kind, of_kind in near.items():
        told = dict(zip(finder.history.hashes, cosines[kind].tolist(), strict=True))
        assert {name: cosine for name, cosine in told.items() if not np.isnan(cosine)} == pytest.approx(
            of_kind, abs=1e-5
        )
    # No commit has a word of the query: meaning alone decides, and what lacks a kind of text is as far as the farthest.
    filled = {kind: [of.get(name, min(of.values())) for name in patches] for kind, of in near.items() if of}
    summed = z_scores(np.array(filled["message"])) + LEARNED.code * z_scores(np.array(filled["code"]))
    best = dict(zip(patches, summed.tolist(), strict=True))
    once: dict[str, str] = {}
    for name in sorted(best, key=lambda name: -best[name]):
        once.setdefault(patches[name], name)
    assert len(once) < len(best)  # the story has a merge that repeats its only commit
    assert [hit.commit_hash for hit in hits] == list(once.values())


SILENT = {
    "kettle": "def boil_water(kettle):\n    # steam rises when it is hot enough for tea\n    return kettle.heat(100)\n",
    "bridge": "def span(river):\n    # a bridge lets cars get across\n    return river.width + 2\n",
    "violin": "def tune(strings):\n    # an orchestra plays tonight\n    return [s.pitch for s in strings]\n",
    "orchard": "def harvest(trees):\n    # ripe fruit falls in autumn\n    return sum(tree.apples for tree in trees)\n",
    "glacier": "def melt(ice):\n    # it grows warmer every summer\n    return ice.volume - 1\n",
}


def test_where_messages_say_nothing_their_hunks_have_vectors_and_are_found_by_them(repo: Repo) -> None:
    names = {name: repo.commit("wip", **{f"m{number}.py": text}) for number, (name, text) in enumerate(SILENT.items())}
    repo.commit("Explain the layout of the project", README__md="one\n")
    operations.index(place(repo), Reporter())
    with Store.existing(place(repo).folder) as store:
        kinds = store.vector_names(load_embedder("all-MiniLM-L6-v2").fingerprint)
        order = dict(zip(store.ids(), store.order(), strict=True))
        assert {order[commit_id] for commit_id, kind, _ in kinds if kind == "hunks"} == set(names.values())
    hit, *_ = found(repo, "hot drink for breakfast")
    assert hit.commit_hash == names["kettle"]
    assert "meaning of the hunks" in hit.why


def test_a_message_that_says_nothing_any_more_gets_its_hunks_embedded_then(repo: Repo) -> None:
    *texts, last = SILENT.values()
    for number, text in enumerate(texts):
        repo.commit("wip", **{f"m{number}.py": text})

    def hunks() -> int:
        operations.index(place(repo), Reporter())
        with Store.existing(place(repo).folder) as store:
            names = store.vector_names(load_embedder("all-MiniLM-L6-v2").fingerprint)
        return sum(kind == "hunks" for _, kind, _ in names)

    assert hunks() == 0  # four alike are no habit yet
    repo.commit("wip", last__py=last)
    assert hunks() == 5
    assert operations.index(place(repo), Reporter()).vectors == 0


def test_an_empty_query_is_refused(indexed: Repo) -> None:
    with pytest.raises(UsageError, match="the query is empty"):
        found(indexed, " \n")


def test_a_search_without_an_index_says_how_to_make_one(unread: Repo) -> None:
    with pytest.raises(StoreError, match="there is no index") as caught:
        found(unread, "bridge")
    assert "treering index" in caught.value.hint


# what is made, and when ------------------------------------------------------------------------------------------


def test_a_second_index_adds_nothing_and_one_more_commit_adds_one(unread: Repo) -> None:
    count = int(unread.git("rev-list", "--count", "--all"))
    first = operations.index(place(unread), Reporter())
    assert first.commits == count
    assert count < first.vectors <= 2 * count
    second = operations.index(place(unread), Reporter())
    assert (second.commits, second.vectors) == (0, 0)
    unread.commit("Weigh the zeppelin", src_0_zeppelin__py="def weigh_zeppelin():\n    pass\n")
    third = operations.index(place(unread), Reporter())
    assert (third.commits, third.vectors) == (1, 2)
    assert found(unread, "weigh_zeppelin")[0].subject == "Weigh the zeppelin"


def test_a_changed_setting_makes_the_index_anew(indexed: Repo) -> None:
    count = int(indexed.git("rev-list", "--count", "--all"))
    changed: dict[str, dict[str, object]] = {"scrape": {"patch_file_bytes": 1000}}
    said = io.StringIO()
    assert operations.index(place(indexed, **changed), Reporter(said)).commits == count
    assert "made anew: its settings changed" in said.getvalue()
    assert operations.index(place(indexed, **changed), Reporter()).commits == 0
    assert found(indexed, "dispute_rule_8", **changed)[0].subject == "cli local changes"
    assert operations.index(place(indexed), Reporter()).commits == count


def test_an_index_is_made_anew_on_request_and_finds_the_same(indexed: Repo) -> None:
    before = found(indexed, "bridge receipts")
    made = operations.index(place(indexed), Reporter(), rebuild=True)
    assert made.commits == int(indexed.git("rev-list", "--count", "--all"))
    assert found(indexed, "bridge receipts") == before


def test_with_a_torn_matrix_words_answer_and_a_rebuild_mends_it(indexed: Repo) -> None:
    (matrix,) = (place(indexed).folder / "vectors").glob("*/vectors.f32")
    matrix.write_bytes(matrix.read_bytes()[:1000])
    report = Reporter()
    assert finding.search(place(indexed), "gateway bridge", report)[0].subject == "Bridge receipts over the gateway"
    assert "searching by words only" in report.warnings[0]
    assert "is torn" in report.warnings[0]
    assert "treering verify --repair" in report.warnings[0]
    operations.index(place(indexed), Reporter(), rebuild=True)
    assert found(indexed, "gateway bridge")[0].subject == "Bridge receipts over the gateway"


@pytest.mark.parametrize("content", [b"\0", b"\xff", b"\x7f", b"\1\0\x80\x7f"])
def test_a_matrix_that_holds_no_vectors_is_told(indexed: Repo, content: bytes) -> None:
    (matrix,) = (place(indexed).folder / "vectors").glob("*/vectors.f32")
    size = matrix.stat().st_size
    matrix.write_bytes(matrix.read_bytes()[: size // 2] + content * ((size - size // 2) // len(content)))
    report = Reporter()
    assert finding.search(place(indexed), "gateway bridge", report)[0].subject == "Bridge receipts over the gateway"
    assert "is damaged" in report.warnings[0]
    assert "treering index --rebuild" in report.warnings[0]


def test_a_commit_that_vanished_is_not_found_and_comes_back(indexed: Repo) -> None:
    indexed.git("branch", "later", "HEAD")
    doomed = indexed.commit("Weigh the zeppelin", src_0_zeppelin__py="def weigh_zeppelin():\n    pass\n")
    operations.index(place(indexed), Reporter())
    assert found(indexed, "weigh_zeppelin")[0].commit_hash == doomed
    indexed.git("reset", "--quiet", "--hard", "later")
    operations.index(place(indexed), Reporter())
    assert doomed not in [hit.commit_hash for hit in found(indexed, "weigh_zeppelin zeppelin", search={"limit": 100})]
    indexed.git("branch", "rescued", doomed)
    assert operations.index(place(indexed), Reporter()).commits == 0
    assert found(indexed, "weigh_zeppelin")[0].commit_hash == doomed


# without the model -----------------------------------------------------------------------------------------------


def test_without_the_model_a_search_answers_by_words_and_warns(indexed: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch)
    report = Reporter()
    hits = finding.search(place(indexed), "dispute_rule_8", report)
    assert hits[0].subject == "cli local changes"
    assert "meaning" not in hits[0].why
    (warning,) = report.warnings
    assert "by words only" in warning
    assert "no-such-package" in warning


def test_without_vectors_a_search_answers_by_words_and_warns(indexed: Repo) -> None:
    with Store.existing(place(indexed).folder) as store, store.writing("a test"):
        store.db.execute("DELETE FROM vectors")
    report = Reporter()
    assert finding.search(place(indexed), "dispute_rule_8", report)[0].subject == "cli local changes"
    (warning,) = report.warnings
    assert "no vectors" in warning
    assert "treering index" in warning


# points ----------------------------------------------------------------------------------------------------------

SEED_KEYS = ["commit_hash", "author", "message", "files_modified", "insertions", "timestamp"]
"""The payload that the seed shows, in its order."""


def test_the_points_are_taken_by_qdrants_own_engine(indexed: Repo, minilm: Any, tmp_path: Path) -> None:
    import qdrant_edge as qdrant

    with Store.existing(place(indexed).folder) as store:
        made = list(index_stage.points(store, minilm))
        count = store.count()
    shard = qdrant.EdgeShard.create(
        str(tmp_path / "shard"),
        qdrant.EdgeConfig(vectors=qdrant.EdgeVectorParams(size=minilm.dimensions, distance=qdrant.Distance.Cosine)),
    )
    try:
        shard.update(
            qdrant.UpdateOperation.upsert_points(
                [qdrant.Point(uuid.UUID(point.id), point.vector, point.payload) for point in made]
            )
        )
        assert shard.count(qdrant.CountRequest(exact=True)) == len(made)
        query = [float(x) for x in embed(minilm, ["Bridge receipts over the gateway"])[0]]
        (nearest,) = shard.query(qdrant.QueryRequest(1, query=qdrant.Query.Nearest(query), with_payload=True))
    finally:
        shard.close()
    assert nearest.score == pytest.approx(1, abs=1e-3)
    payload: Any = nearest.payload
    assert payload["message"] == "Bridge receipts over the gateway"
    assert payload["kind"] == "message"
    assert count < len(made) <= 2 * count


def test_every_point_has_a_uuid_of_its_own_a_unit_vector_and_the_seeds_payload(indexed: Repo, minilm: Any) -> None:
    with Store.existing(place(indexed).folder) as store:
        made = list(index_stage.points(store, minilm))
        again = list(index_stage.points(store, minilm))
        records = {record.commit_hash: record for record in store.records()}
    assert len({str(uuid.UUID(point.id)) for point in made}) == len(made)
    assert [point.id for point in again] == [point.id for point in made]
    for point in made:
        assert list(point.payload)[: len(SEED_KEYS)] == SEED_KEYS
        assert np.linalg.norm(point.vector) == pytest.approx(1, abs=1e-5)
        record = records[str(point.payload["commit_hash"])]
        assert point.payload["insertions"] == record.insertions
        assert point.payload["message"] == record.message_subject
        assert point.payload["timestamp"] == record.commit_timestamp
    assert {point.payload["commit_hash"] for point in made} == set(records)
    assert {point.payload["kind"] for point in made} == set(KINDS) - {"hunks"}  # every message says something


def test_an_index_killed_between_the_parts_of_a_text_goes_on(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        repo.commit("wip", **{f"module{number}__py": f"def settle_{number}():\n    return {number}\n" * 3})
    where = opening.place(repo.path)
    real = index_stage._embedded

    def killed(model: Any, texts: Any) -> Any:
        yield from list(real(model, texts))[:2]
        raise KeyboardInterrupt

    repo.commit("wip", **{f"part{number}__py": f"quota_{number} = {number}\n" for number in range(5)})
    monkeypatch.setattr(index_stage, "FLUSH", 1)
    monkeypatch.setattr(index_stage, "_embedded", killed)
    with pytest.raises(KeyboardInterrupt):
        operations.index(where, Reporter())
    monkeypatch.undo()
    operations.index(where, Reporter())
    with Store.existing(where.folder) as store:
        fingerprint = store.db.execute("SELECT fingerprint FROM vectors").fetchone()[0]
        names = store.vector_names(fingerprint)
    assert len(set(names)) == len(names)
    assert max(part for _, _, part in names) > 0


def test_what_no_vector_has_of_a_long_text_is_counted_and_is_no_damage(repo: Repo) -> None:
    short, long = "Say it shortly", "Tell it all\n\n" + " ".join(f"word{number}" for number in range(900)) + " zeppelin"
    for message in (short, long):
        repo.commit(message, told__py=f"{len(message)}\n")
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    left_out = json.loads((where.folder / "manifest.json").read_text())["left_out"]["index"]
    unread = left_out["message beyond all-MiniLM-L6-v2"]
    assert unread["files"] == 1
    assert 0 < unread["bytes"] < len(long)
    assert finding.search(where, "zeppelin", Reporter())[0].subject == "Tell it all"
    assert caring.verify(where, Reporter()).sound
