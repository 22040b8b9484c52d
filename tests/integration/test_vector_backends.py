"""One promise for every vector back end, and what each does when the world is not as it should be.

`edge` is Qdrant's real engine in process. `fake` is our client against a server over loopback that is qdrant-client's
own in-memory engine. `server` is a real Qdrant, where QDRANT_URL names one.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace as changed
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

import fake_qdrant
from fake_qdrant import FakeQdrant
from repositories import Repo, at_home, tell_story
from treering import exports, opening, operations
from treering.cli.main import main
from treering.config import VectorSettings
from treering.errors import DataError, ModelError, StoreBusy, StoreError, UsageError
from treering.pipeline import index as index_stage
from treering.pipeline import mirror as mirror_stage
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.dense import Dense
from treering.search.history import History
from treering.store import Store
from treering.text.document import KINDS
from treering.types import Point
from treering.vectors import qdrant as qdrant_stage
from treering.vectors.edge import EdgeIndex
from treering.vectors.index import Collection, Mirror, VectorIndex, place_of
from treering.vectors.minilm import MiniLM
from treering.vectors.qdrant import QdrantIndex

DOCS = Path(__file__).parents[2] / "docs"
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The story, and a commit with texts of several parts, with its index; tests take copies."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        made = tell_story(Repo(tmp_path_factory.mktemp("template") / "project"))
        body = " ".join(f"The ledger forgets the settled order number {number}." for number in range(60))
        made.commit(f'Tell of the ledger: "quoted", 日本語, é\n\n{body}', ledger__md=f"# Ledger\n\n{body}\n")
        operations.index(opening.place(made.path), Reporter())
    return made


@pytest.fixture
def repo(template: Repo, tmp_path: Path) -> Repo:
    return template.copied(tmp_path / "project")


@pytest.fixture
def store(repo: Repo) -> Iterator[Store]:
    with Store.existing(repo.path / ".treering") as opened:
        yield opened


@pytest.fixture
def points(store: Store, minilm: Any) -> list[Point]:
    return list(index_stage.points(store, minilm))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQdrant]:
    monkeypatch.setattr(qdrant_stage, "PAUSES", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with fake_qdrant.serving() as server:
        yield server


def collection(embedder: Any, name: str = "project-commits", *, tenant: str = "") -> Collection:
    of_model = embedder.name, embedder.fingerprint, embedder.dimensions, KINDS
    return Collection(name, tenant or "project", *of_model, shared=bool(tenant))


def at(url: str, timeout: int = 10) -> VectorSettings:
    return VectorSettings(qdrant_url=url, qdrant_timeout=timeout)


def server_at(
    fake: FakeQdrant, embedder: Any, *, create: bool = True, timeout: int = 10, tenant: str = ""
) -> QdrantIndex:
    return QdrantIndex(collection(embedder, tenant=tenant), at(fake.url, timeout), create=create)


# the contract ----------------------------------------------------------------------------------------------------

Opened = Callable[[], AbstractContextManager[VectorIndex]]
REAL = os.environ.get("QDRANT_URL", "")
_REALLY = [
    pytest.mark.qdrant,
    pytest.mark.skipif(not REAL, reason="QDRANT_URL is not set: not run against a real Qdrant server"),
]
MIRRORS = [
    "edge",
    "fake",
    "fake tenant",
    pytest.param("server", marks=_REALLY),
    pytest.param("server tenant", marks=_REALLY),
]
every_back_end = pytest.mark.parametrize("opened", ["flat", *MIRRORS], indirect=True)
every_mirror = pytest.mark.parametrize("opened", MIRRORS, indirect=True)


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, store: Store, points: list[Point], minilm: Any, tmp_path: Path
) -> Iterator[Opened]:
    """Opens one back end, empty at first; what is put in is there when it is opened again. A tenant's collection holds
    another one's points of the same commits, which stay as they are.
    """
    kind, _, shared = request.param.partition(" ")
    if kind == "flat":
        store.forget_vectors(minilm.fingerprint)
        yield lambda: nullcontext(mirror_stage.StoreIndex(store, minilm))
    elif kind == "edge":
        yield lambda: EdgeIndex(collection(minilm), tmp_path / "edge", create=True)
    else:
        url = request.getfixturevalue("fake").url if kind == "fake" else REAL
        name = f"treering-test-{uuid.uuid4().hex}"
        mine, other = (
            QdrantIndex(collection(minilm, name, tenant=shared and of), at(url, 30), create=True)
            for of in ("project", "another")
        )
        theirs = {point.id: point for point in index_stage.points(store, minilm, "another")} if shared else {}
        if theirs:
            with other:
                other.upsert(theirs.values())
        yield lambda: mine
        if theirs:
            with other:
                assert len(other) == len(theirs)
                assert all(same(found, theirs[found.id]) for found in other.points())
        headers = {"api-key": os.environ.get("QDRANT_API_KEY", "")}
        client = QdrantClient(url=url, headers=headers, check_compatibility=False)
        client.delete_collection(name)
        client.close()


def text_order(points: Sequence[Point]) -> list[Point]:
    """The first part of each text after its others, as the store wants them."""
    return sorted(points, key=lambda point: -(place_of(point) or ("", "", 0))[2])


def same(found: Point, wanted: Point) -> bool:
    as_json = json.loads(json.dumps(wanted.payload))  # tuples are lists elsewhere
    return json.loads(json.dumps(found.payload)) == as_json and np.allclose(found.vector, wanted.vector, atol=1e-5)


@every_back_end
def test_what_was_put_in_comes_back(opened: Opened, points: list[Point]) -> None:
    with opened() as index:
        assert len(index) == 0
        assert list(index.points()) == []
        assert index.upsert(iter(text_order(points))) == len(points)
        assert len(index) == len(points)
    with opened() as index:
        found = {point.id: point for point in index.points()}
    assert found.keys() == {point.id for point in points}
    assert all(same(found[point.id], point) for point in points)
    assert any(str(point.payload["kind"]).endswith("-2") for point in points)


@every_back_end
def test_keys_are_told_without_the_rest(opened: Opened, points: list[Point]) -> None:
    with opened() as index:
        index.upsert(text_order(points))
        found = list(index.points(("commit_hash", "branch")))
    keys = ("commit_hash", "branch")
    wanted = {point.id: {key: point.payload[key] for key in keys} for point in points}
    assert {point.id: point.payload for point in found} == wanted
    assert not any(point.vector for point in found)


@every_back_end
@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_commits_are_those_of_an_exact_scan(opened: Opened, points: list[Point], kind: str) -> None:
    rows = [(place, np.array(point.vector, np.float32)) for point in points if (place := place_of(point))]
    with opened() as index:
        index.upsert(text_order(points))
        for asked in [row for _, row in rows][::5]:
            best: dict[str, float] = {}
            for (name, of, _), row in rows:
                if of == kind:
                    best[name] = max(best.get(name, -2.0), float(row @ asked))
            cosines = sorted(best.values(), reverse=True)
            for limit in (1, 3, 7, 1000):
                found = index.nearest(asked, kind, limit)
                assert len(found) == min(limit, len(best))
                assert len({name for name, _ in found}) == len(found)
                assert [cosine for _, cosine in found] == pytest.approx(cosines[:limit], abs=1e-5)
                assert all(cosine == pytest.approx(best[name], abs=1e-5) for name, cosine in found)


@every_back_end
def test_putting_the_same_in_again_changes_nothing(opened: Opened, points: list[Point]) -> None:
    with opened() as index:
        index.upsert(text_order(points))
        index.upsert(text_order(points[:10]))
        assert len(index) == len(points)
        found = {point.id: point for point in index.points()}
    assert all(same(found[point.id], point) for point in points)


@every_back_end
def test_nothing_is_near_where_nothing_is(opened: Opened, points: list[Point]) -> None:
    with opened() as index:
        assert index.upsert([]) == 0
        assert index.nearest(np.array(points[0].vector, np.float32), "message", 5) == []


@every_mirror
def test_a_changed_point_takes_the_place_of_the_old_one(opened: Any, points: list[Point]) -> None:
    new = changed(points[0], vector=points[1].vector, payload=points[0].payload | {"branch": "elsewhere"})
    with opened() as index:
        index.upsert(points)
        index.upsert([new])
        assert len(index) == len(points)
        (found,) = [point for point in index.points() if point.id == new.id]
    assert same(found, new)


@every_mirror
def test_what_is_removed_is_gone_and_found_no_more(opened: Any, points: list[Point]) -> None:
    gone = [point for point in points if point.payload["commit_hash"] == points[0].payload["commit_hash"]]
    with opened() as index:
        index.upsert(points)
        assert index.remove([*(point.id for point in gone), str(uuid.uuid4())]) == len(gone) + 1
        assert len(index) == len(points) - len(gone)
        found = index.nearest(np.array(points[0].vector, np.float32), "message", 1000)
    assert points[0].payload["commit_hash"] not in dict(found)


@every_mirror
def test_more_points_than_a_batch_come_back_too(opened: Any, points: list[Point]) -> None:
    many = [
        changed(points[number % len(points)], id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))))
        for number in range(600)
    ]
    with opened() as index:
        assert index.upsert(many) == 600
        assert {point.id for point in index.points(())} == {point.id for point in many}


@every_mirror
def test_a_point_of_no_commit_is_refused(opened: Any, points: list[Point]) -> None:
    with opened() as index, pytest.raises(DataError, match="names no commit and kind"):
        index.upsert([changed(points[0], payload={})])


def test_the_exported_points_are_taken_by_the_real_engine(repo: Repo, minilm: Any, tmp_path: Path) -> None:
    history, file, report = tmp_path / "h.jsonl", tmp_path / "points.json", Reporter()
    exports.export_history(repo.path, history, tmp_path / "h.json", report)
    exports.export_embeddings(history, tmp_path / "e.jsonl", file, report, model=minilm.name, batch_size=32)
    made = msgspec.json.decode(file.read_bytes(), type=list[Point])
    TypeAdapter(list[models.PointStruct]).validate_json(file.read_bytes())
    with EdgeIndex(collection(minilm), tmp_path, create=True) as index:
        assert index.upsert(made) == len(made) == len(index)
        (asked,) = (one for one in made if one.payload["message"] == "Bridge receipts over the gateway"
                    and one.payload["kind"] == "message")  # fmt: skip
        ((name, cosine),) = index.nearest(np.array(asked.vector, np.float32), "message", 1)
    assert name == asked.payload["commit_hash"]
    assert cosine == pytest.approx(1, abs=1e-5)


# what goes over the wire -----------------------------------------------------------------------------------------


def test_a_collection_has_a_vector_for_each_kind_an_index_for_each_filter_and_its_models_fingerprint(
    fake: FakeQdrant, minilm: Any
) -> None:
    with server_at(fake, minilm):
        pass
    (made,) = fake.bodies("")
    assert made["vectors"] == {kind: {"size": 384, "distance": "Cosine"} for kind in KINDS}
    assert made["metadata"]["fingerprint"] == minilm.fingerprint
    indexed = {body["field_name"]: body["field_schema"] for body in fake.bodies("/index")}
    assert indexed.keys() == {"commit_hash", "author", "branch", "timestamp", "kind", "repo"}
    assert indexed["timestamp"] == "integer"
    with server_at(fake, minilm):
        pass
    assert len(fake.bodies("")) == 1
    assert len(fake.bodies("/index")) == 6


def test_a_shared_collection_is_of_no_repository_and_its_tenants_are_indexed_as_such(
    fake: FakeQdrant, minilm: Any
) -> None:
    for tenant in ("one", "two"):
        with server_at(fake, minilm, tenant=tenant):
            pass
    (made,) = fake.bodies("")
    assert made["metadata"]["tenant"] == "repo"
    assert "repo" not in made["metadata"]
    indexed = {body["field_name"]: body["field_schema"] for body in fake.bodies("/index")}
    assert len(fake.bodies("/index")) == len(indexed) == 6
    assert indexed["repo"] == {"type": "keyword", "is_tenant": True}
    assert indexed["author"] == "keyword"


def test_a_collection_is_made_as_the_settings_say(fake: FakeQdrant, minilm: Any) -> None:
    chosen = VectorSettings(
        qdrant_url=fake.url, qdrant_quantization="scalar", qdrant_on_disk=True, qdrant_shards=6, qdrant_replicas=2
    )
    for settings, name in ((chosen, "large"), (at(fake.url), "small")):
        with QdrantIndex(collection(minilm, name), settings, create=True):
            pass
    large, small = fake.bodies("")
    assert large["quantization_config"] == {"scalar": {"type": "int8", "always_ram": True}}
    assert all(vectors["on_disk"] for vectors in large["vectors"].values())
    assert (large["shard_number"], large["replication_factor"]) == (6, 2)
    assert small.keys() == {"vectors", "metadata"}, "what nobody chose is the server's to choose"


def test_cosines_are_of_the_vectors_themselves_whatever_they_are_searched_by(
    fake: FakeQdrant, minilm: Any, points: list[Point]
) -> None:
    with server_at(fake, minilm) as index:
        index.nearest(np.array(points[0].vector, np.float32), "message", 3)
    assert [body["params"]["quantization"]["rescore"] for body in fake.bodies("/points/query")] == [True]


def test_two_that_make_a_collection_at_once_both_have_it(
    fake: FakeQdrant, minilm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = QdrantIndex._make

    def late(index: QdrantIndex) -> None:
        monkeypatch.setattr(QdrantIndex, "_make", make)
        with server_at(fake, minilm, tenant="two"):
            pass
        make(index)

    monkeypatch.setattr(QdrantIndex, "_make", late)
    with server_at(fake, minilm, tenant="one") as index:
        assert len(index) == 0
    assert len(fake.bodies("")) == 2, "the second was refused"


def test_points_travel_in_batches(fake: FakeQdrant, minilm: Any, points: list[Point]) -> None:
    many = [changed(points[0], id=str(uuid.uuid4())) for _ in range(600)]
    with server_at(fake, minilm) as index:
        index.upsert(many)
    assert [len(body["points"]) for body in fake.bodies("/points")] == [256, 256, 88]
    assert fake.bodies("/points")[0]["points"][0]["vector"].keys() == {"message"}


@pytest.mark.skipif("QDRANT_OPENAPI" not in os.environ, reason="QDRANT_OPENAPI names no copy of Qdrant's document")
@pytest.mark.parametrize("tenant", ["", "project"])
def test_every_body_is_what_qdrants_own_document_asks_for(
    fake: FakeQdrant, minilm: Any, points: list[Point], tenant: str
) -> None:
    """Every test with the fake server checks this where the variable is set; this one says that it was."""
    with server_at(fake, minilm, tenant=tenant) as index:
        index.upsert(points)
        index.nearest(np.array(points[0].vector, np.float32), "message", 3)
        list(index.points(("commit_hash",)))
        index.remove([points[0].id])
        len(index)
    assert {(method, route) for method, route, body in fake.requests if body is not None} <= fake_qdrant.BODIES.keys()
    broken: list[tuple[str, dict[str, Any]]] = [
        ("/points", {"points": [{"id": "a1b2", "vector": {"message": "?"}}]}),
        ("/points/query", {"limit": "three"}),
        ("", {"vectors": {"message": {"size": 384}}}),
    ]
    for route, body in broken:
        published = fake_qdrant.published("POST" if "query" in route else "PUT", fake_qdrant.COLLECTION + route)
        assert list(published.iter_errors(body))


def test_a_field_that_qdrant_does_not_know_is_caught() -> None:
    route = fake_qdrant.COLLECTION + "/points/query"
    assert fake_qdrant.problem("POST", route, {"limit": 3, "with_payload": True, "vector_name": "code"})
    assert not fake_qdrant.problem("POST", route, {"limit": 3, "with_payload": True, "using": "code"})


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_batch_is_sent_again_when_the_server_is_out_of_order(
    fake: FakeQdrant, minilm: Any, points: list[Point], status: int
) -> None:
    with server_at(fake, minilm) as index:
        fake.faults.extend([(status, 0.0)] * 3)
        assert index.upsert(points) == len(points)
        assert len(index) == len(points)


def test_a_batch_is_sent_again_when_the_server_is_slow(fake: FakeQdrant, minilm: Any, points: list[Point]) -> None:
    with server_at(fake, minilm, timeout=1) as index:
        fake.faults.append((0, 1.5))
        index.upsert(points)
        assert len(index) == len(points)


def test_a_server_that_stays_out_of_order_is_named_after_a_few_tries(
    fake: FakeQdrant, minilm: Any, points: list[Point]
) -> None:
    with server_at(fake, minilm) as index:
        fake.faults.extend([(502, 0.0)] * 5)
        with pytest.raises(StoreError, match=f"{fake.url} answers 502"):
            index.upsert(points)
    assert not fake.faults


def test_a_bad_request_is_not_sent_again(fake: FakeQdrant, minilm: Any) -> None:
    with server_at(fake, minilm) as index:
        fake.faults.append((422, 0.0))
        with pytest.raises(StoreError, match="answers 422"):
            index.remove([str(uuid.uuid4())])
        assert not fake.faults
        assert len(index) == 0


# a server that is away, slow, or refuses -------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_server_that_is_away_is_named_at_once_with_the_way_to_start_one(minilm: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with (
        pytest.raises(StoreError, match=f"no Qdrant answers at {url}") as caught,
        QdrantIndex(collection(minilm), at(url, 10)),
    ):
        pass
    assert "docker run -p 6333:6333 qdrant/qdrant" in caught.value.hint
    assert time.monotonic() - started < 5


def test_a_server_that_is_slow_is_given_up_after_the_time_that_was_set(fake: FakeQdrant, minilm: Any) -> None:
    fake.faults.append((0, 2.0))
    started = time.monotonic()
    with pytest.raises(StoreError, match="no answer within 1 s") as caught, server_at(fake, minilm, timeout=1):
        pass
    assert "QDRANT_TIMEOUT" in caught.value.hint
    assert time.monotonic() - started < 1.9


@pytest.mark.parametrize("key", ["", "the-wrong-key-entirely"])
def test_a_refused_key_is_told_by_the_name_of_its_variable_and_never_shown(
    fake: FakeQdrant, minilm: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    fake.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", key)
    with pytest.raises(StoreError) as caught, server_at(fake, minilm):
        pass
    assert ("refuses the key in QDRANT_API_KEY" if key else "wants a key") in caught.value.message
    assert "QDRANT_API_KEY" in caught.value.hint
    assert not key or key not in caught.value.message + caught.value.hint


def test_the_right_key_opens_and_is_in_no_message(
    fake: FakeQdrant, minilm: Any, points: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", f"{KEY}\n")
    with server_at(fake, minilm) as index:
        assert index.upsert(points) == len(points)
        with pytest.raises(StoreError) as caught:
            index.nearest(np.array(points[0].vector, np.float32), KEY, 1)
    assert KEY not in caught.value.message


def test_a_key_that_can_be_none_is_not_sent(fake: FakeQdrant, minilm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "with\nlines")
    with pytest.raises(UsageError, match="QDRANT_API_KEY holds characters") as caught, server_at(fake, minilm):
        pass
    assert "with" not in caught.value.message.replace("with\n", "")
    assert not fake.requests


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://[", "http://127.0.0.1:notaport"])
def test_an_address_that_is_none_is_refused(minilm: Any, url: str) -> None:
    with pytest.raises(UsageError, match="no address of a Qdrant server"), QdrantIndex(collection(minilm), at(url, 1)):
        pass


def test_a_password_in_the_address_is_not_shown(minilm: Any) -> None:
    url = f"http://me:secret@127.0.0.1:{free_port()}"
    with pytest.raises(StoreError) as caught, QdrantIndex(collection(minilm), at(url, 1)):
        pass
    assert "secret" not in caught.value.message + caught.value.hint


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """Something that is no Qdrant."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            one, _ = server.accept()
            with one:
                one.recv(65536)
                one.sendall(content)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_something_else_at_that_address_is_an_error_that_names_it(minilm: Any, content: bytes) -> None:
    with (
        answering(content) as url,
        pytest.raises(StoreError, match=f"at {url}"),
        QdrantIndex(collection(minilm), at(url, 2)),
    ):
        pass


def test_no_collection_says_to_push(fake: FakeQdrant, minilm: Any) -> None:
    with (
        pytest.raises(StoreError, match="no collection `project-commits`") as caught,
        server_at(fake, minilm, create=False),
    ):
        pass
    assert "treering qdrant push" in caught.value.hint


# another model's -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OtherModel:
    name: str = "another-model"
    dimensions: int = 384
    fingerprint: str = "0123456789abcdef"


@pytest.mark.parametrize("create", [True, False])
def test_another_models_collection_is_refused_and_both_are_named(
    fake: FakeQdrant, minilm: Any, points: list[Point], create: bool
) -> None:
    with server_at(fake, OtherModel()):
        pass
    with pytest.raises(ModelError) as caught, server_at(fake, minilm, create=create) as index:
        index.upsert(points)
    for named in ("another-model", "0123456789abcdef", minilm.name, minilm.fingerprint, fake.url):
        assert named in caught.value.message
    assert not fake.bodies("/points")


def test_a_collection_that_is_not_ours_is_refused(fake: FakeQdrant, minilm: Any) -> None:
    size = models.VectorParams(size=384, distance=models.Distance.COSINE)
    fake.engine.create_collection("project-commits", size)
    fake.indexes["project-commits"] = {}
    with pytest.raises(ModelError, match="was not made by treering"), server_at(fake, minilm):
        pass


@pytest.mark.parametrize(("made", "asked"), [("", "project"), ("project", "")])
def test_a_collection_of_one_takes_no_tenants_and_a_shared_one_nobody_else(
    fake: FakeQdrant, minilm: Any, points: list[Point], made: str, asked: str
) -> None:
    with server_at(fake, minilm, tenant=made) as index:
        index.upsert(points)
    said = "shared by several repositories" if made else "made for one repository alone"
    for create in (True, False):
        with pytest.raises(StoreError, match=said), server_at(fake, minilm, tenant=asked, create=create):
            pass
    with server_at(fake, minilm, tenant=made) as index:
        assert len(index) == len(points)


def test_another_tenants_points_are_removed_by_nobody_who_names_their_ids(
    fake: FakeQdrant, minilm: Any, points: list[Point]
) -> None:
    with server_at(fake, minilm, tenant="project") as index:
        index.upsert(points)
        with server_at(fake, minilm, tenant="another") as other:
            other.remove(point.id for point in points)
        assert len(index) == len(points)


def test_edge_never_mixes_models(minilm: Any, points: list[Point], tmp_path: Path) -> None:
    with EdgeIndex(collection(OtherModel()), tmp_path, create=True) as index:
        index.upsert(points)
    with pytest.raises(StoreError, match="there are no points in") as caught, EdgeIndex(collection(minilm), tmp_path):
        pass
    assert "push" in caught.value.hint
    other: Any = replace(OtherModel(), dimensions=8)
    with pytest.raises(StoreError, match="incompatible"), EdgeIndex(collection(other), tmp_path):
        pass


# one process at a time -------------------------------------------------------------------------------------------


def test_edge_is_for_one_process_at_a_time(minilm: Any, points: list[Point], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from treering.vectors.edge import EdgeIndex; from treering.vectors.index import Collection\n"
        f"ours = Collection('c', 'r', 'm', {minilm.fingerprint!r}, 384, {KINDS!r})\n"
        "with EdgeIndex(ours, Path(sys.argv[1]), create=True) as index:\n"
        "    print(len(index), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        with pytest.raises(StoreBusy, match="another process has"), EdgeIndex(collection(minilm), tmp_path):
            pass
        other.communicate("")
    with EdgeIndex(collection(minilm), tmp_path) as index:
        assert index.upsert(points) == len(points)


def test_what_was_put_into_edge_outlives_a_kill(minilm: Any, points: list[Point], tmp_path: Path) -> None:
    code = (
        "import os, sys, msgspec; from pathlib import Path; from treering.types import Point\n"
        "from treering.vectors.edge import EdgeIndex; from treering.vectors.index import Collection\n"
        f"ours = Collection('c', 'r', 'm', {minilm.fingerprint!r}, 384, {KINDS!r})\n"
        "points = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Point])\n"
        "with EdgeIndex(ours, Path(sys.argv[1]), create=True) as index:\n"
        "    index.upsert(points); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], input=msgspec.json.encode(points), check=False)
    with EdgeIndex(collection(minilm), tmp_path) as index:
        assert len(index) == len(points)


def test_a_torn_edge_says_how_to_make_it_again(minilm: Any, points: list[Point], tmp_path: Path) -> None:
    with EdgeIndex(collection(minilm), tmp_path, create=True) as index:
        index.upsert(points)
    for path in (tmp_path / "edge").rglob("segment.json"):
        path.write_bytes(b"{")
    with pytest.raises(StoreError) as caught, EdgeIndex(collection(minilm), tmp_path) as index:
        list(index.points())
    assert "delete the folder" in caught.value.hint


# push, pull, verify ----------------------------------------------------------------------------------------------


def pushed(store: Store, embedder: Any, index: Mirror) -> mirror_stage.Pushed:
    return mirror_stage.push(store, embedder, index, Reporter())


def compared(store: Store, embedder: Any, index: Mirror) -> mirror_stage.Compared:
    return mirror_stage.verify(store, embedder, index, Reporter())


@every_mirror
def test_a_pushed_mirror_is_verified_and_a_second_push_writes_nothing(
    opened: Any, store: Store, minilm: Any, points: list[Point]
) -> None:
    with opened() as index:
        assert pushed(store, minilm, index) == mirror_stage.Pushed(len(points), len(points), 0)
        assert pushed(store, minilm, index) == mirror_stage.Pushed(len(points), 0, 0)
        found = compared(store, minilm, index)
    assert found.same
    assert (found.here, found.there, found.agreement, found.examples) == (len(points), len(points), 1.0, ())


@every_mirror
def test_a_push_writes_what_changed_and_takes_out_what_is_gone(opened: Any, repo: Repo, minilm: Any) -> None:
    where = opening.place(repo.path)
    with opened() as index:
        with where.store() as store:
            before = pushed(store, minilm, index)
        repo.git("reset", "--quiet", "--hard", "HEAD~2")
        repo.git("branch", "--quiet", "--force", "elsewhere", "main~5")
        repo.commit("Another end", end__py="def another_end():\n    pass\n")
        operations.index(where, Reporter())
        with where.store() as store:
            done = pushed(store, minilm, index)
            assert 2 <= done.written < before.points
            assert done.removed >= 2
            assert compared(store, minilm, index).same
            assert pushed(store, minilm, index).written == 0


@every_mirror
def test_verify_tells_what_is_missing_extra_and_different(
    opened: Any, store: Store, minilm: Any, points: list[Point]
) -> None:
    with opened() as index:
        pushed(store, minilm, index)
        there = {point.id: point for point in index.points()}
        first, second, third, fourth = (there[point.id] for point in points[:4])
        index.remove([first.id])
        index.upsert([changed(second, vector=third.vector)])
        index.upsert([changed(fourth, payload=fourth.payload | {"digest": "of something else"})])
        index.upsert([changed(first, id=str(uuid.uuid4()))])
        found = compared(store, minilm, index)
        assert not found.same
        assert (found.missing, found.extra, found.different) == (1, 1, 2)
        assert len(found.examples) == 4
        pushed(store, minilm, index)
        found = compared(store, minilm, index)
        assert (found.missing, found.extra, found.different) == (0, 0, 1)  # its digest is right, its vector is not
        mirror_stage.push(store, minilm, index, Reporter(), everything=True)
        assert compared(store, minilm, index).same


@every_mirror
def test_a_pull_fills_a_store_without_embedding_anything(
    opened: Any, store: Store, repo: Repo, minilm: Any, points: list[Point]
) -> None:
    where = opening.place(repo.path)
    with opened() as index:
        pushed(store, minilm, index)
        store.forget_vectors(minilm.fingerprint)
        shutil.rmtree(store.folder / "vectors")
        done = mirror_stage.pull(store, where.source, where.settings, minilm, index, Reporter())
        assert done == mirror_stage.Pulled(len(points), 0)
        assert not store.unembedded(minilm.fingerprint)
        again = {point.id: point for point in index_stage.points(store, minilm)}
        assert all(same(again[point.id], point) for point in points)
        assert pushed(store, minilm, index).written == 0
        assert mirror_stage.pull(store, where.source, where.settings, minilm, index, Reporter()).vectors == 0


def test_a_pull_takes_only_whole_texts_that_are_ours(
    fake: FakeQdrant, store: Store, repo: Repo, minilm: Any, points: list[Point]
) -> None:
    where = opening.place(repo.path)
    with server_at(fake, minilm) as index:
        pushed(store, minilm, index)
        there = {point.id: point for point in index.points()}
        part = next(point for point in points if point.payload["kind"] == "message-2")
        other, torn, *_ = (there[point.id] for point in points if point.payload["kind"] == "message")
        index.remove([part.id])
        index.upsert([changed(other, payload=other.payload | {"text": "another"})])
        index.upsert([changed(torn, payload=torn.payload | {"kind": "code"}, vector=other.vector)])
        index.upsert([changed(other, id=str(uuid.uuid4()), payload=other.payload | {"commit_hash": "0" * 40})])
        store.forget_vectors(minilm.fingerprint)
        done = mirror_stage.pull(store, where.source, where.settings, minilm, index, Reporter())
    assert done.missing == 3
    kinds = {(name, kind) for (name, kind, _) in mirror_stage.StoreIndex(store, minilm).rows}
    for lacking in (part, other, torn):
        assert (lacking.payload["commit_hash"], "message") not in kinds
    made = index_stage.index_vectors(store, lambda: minilm, Reporter())
    assert made >= done.missing
    again = {point.id: point for point in index_stage.points(store, minilm)}
    assert all(same(again[point.id], point) for point in points)


def test_a_pull_mends_a_torn_file_of_vectors(
    fake: FakeQdrant, store: Store, repo: Repo, minilm: Any, points: list[Point]
) -> None:
    where = opening.place(repo.path)
    (file,) = (store.folder / "vectors").rglob("vectors.f32")
    with server_at(fake, minilm) as index:
        pushed(store, minilm, index)
        file.write_bytes(file.read_bytes()[:-100])
        report = Reporter()
        done = mirror_stage.pull(store, where.source, where.settings, minilm, index, report)
        assert done.vectors == len(points)
        assert "torn" in report.warnings[0]
        assert compared(store, minilm, index).same


def test_a_push_of_a_store_without_all_its_vectors_is_refused_and_nothing_is_lost(
    fake: FakeQdrant, store: Store, minilm: Any, points: list[Point]
) -> None:
    with server_at(fake, minilm) as index:
        pushed(store, minilm, index)
        store.forget_vectors(minilm.fingerprint)
        with pytest.raises(StoreError, match="has its vectors") as caught:
            pushed(store, minilm, index)
        assert "treering index" in caught.value.hint
        assert len(index) == len(points)


def test_a_push_of_a_torn_store_is_refused_and_nothing_is_lost(
    fake: FakeQdrant, store: Store, minilm: Any, points: list[Point]
) -> None:
    (file,) = (store.folder / "vectors").rglob("vectors.f32")
    with server_at(fake, minilm) as index:
        pushed(store, minilm, index)
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(StoreError, match="torn"):
            pushed(store, minilm, index)
        assert len(index) == len(points)


def test_another_repositorys_collection_of_the_same_name_is_not_overwritten(
    fake: FakeQdrant, store: Store, minilm: Any, make_repo: Callable[..., Repo]
) -> None:
    other = make_repo("other/project")
    other.commit("Quite another history", other__py="def other():\n    pass\n")
    operations.index(opening.place(other.path), Reporter())
    with server_at(fake, minilm) as index:
        before = pushed(store, minilm, index)
        theirs = Store.existing(other.path / ".treering")
        with theirs, pytest.raises(StoreError, match="no commit of this repository") as caught:
            pushed(theirs, minilm, index)
        assert "--collection" in caught.value.hint
        assert len(index) == before.points


def test_a_push_that_broke_off_goes_on(fake: FakeQdrant, store: Store, minilm: Any, points: list[Point]) -> None:
    with server_at(fake, minilm) as index:
        index.upsert(points[:7])
        assert pushed(store, minilm, index).written == len(points)  # those seven had no digest
        index.remove([point.id for point in points[:7]])
        assert pushed(store, minilm, index).written == 7


# a search through a mirror ---------------------------------------------------------------------------------------


@every_mirror
def test_the_dense_leg_is_the_same_through_a_mirror(opened: Any, store: Store, minilm: Any) -> None:
    history = History(store)
    own = Dense(history, minilm)
    with opened() as index:
        pushed(store, minilm, index)
        through = Dense(history, minilm, index)
        assert through.count == own.count
        for query in ("Bridge receipts over the gateway", "forgets the settled order"):
            wanted, found = own.ask(query), through.ask(query)
            for kind in KINDS:
                assert found[kind] == pytest.approx(wanted[kind], abs=1e-5, nan_ok=True)


def test_a_search_goes_on_with_the_stores_own_vectors_and_says_so(store: Store, minilm: Any) -> None:
    report = Reporter()
    chosen = VectorSettings(backend="qdrant", qdrant_url=f"http://127.0.0.1:{free_port()}")
    with mirror_stage.for_search(store, chosen, minilm, report) as index:
        assert index is None
    (warning,) = report.warnings
    assert "the store's own vectors" in warning
    assert chosen.qdrant_url in warning


def test_flat_asks_nobody(store: Store, minilm: Any) -> None:
    report = Reporter()
    with mirror_stage.for_search(store, VectorSettings(), minilm, report) as index:
        assert index is None
    assert not report.warnings


def test_a_search_asks_the_server_that_was_chosen(fake: FakeQdrant, store: Store, minilm: Any) -> None:
    chosen = VectorSettings(backend="qdrant", qdrant_url=fake.url)
    with mirror_stage.opened(store, chosen, minilm, create=True) as index:
        pushed(store, minilm, index)
    report, own = Reporter(), Dense(History(store), minilm).ask("the ledger")
    with mirror_stage.for_search(store, chosen, minilm, report) as found:
        assert isinstance(found, QdrantIndex)
        dense = Dense(History(store), minilm, found, partial(mirror_stage.told_lost, report))
        asked = len(fake.requests)
        for kind, cosines in dense.ask("the ledger").items():
            assert cosines == pytest.approx(own[kind], abs=1e-5, nan_ok=True)
        assert len(fake.requests) > asked
        fake.faults.append((403, 0.0))  # from here on the store's own vectors answer, and it is said once
        for kind, cosines in (*dense.ask("the ledger").items(), *dense.ask("the ledger").items()):
            assert np.array_equal(cosines, own[kind], equal_nan=True)
    (said,) = report.warnings
    assert said.startswith("searching by the store's own vectors: ")


def test_a_server_that_fails_between_two_questions_fails_none(fake: FakeQdrant, store: Store, minilm: Any) -> None:
    where = VectorSettings(backend="qdrant", qdrant_url=fake.url)
    with mirror_stage.opened(store, where, minilm, create=True) as index:
        pushed(store, minilm, index)
    report = Reporter()
    with mirror_stage.for_search(store, where, minilm, report) as found:
        finder = Finder(store, minilm, index=found, lost=partial(mirror_stage.told_lost, report))
        before = finder.search("the ledger", limit=5)
        fake.faults.extend([(500, 0.0)] * 20)
        after = finder.search("the ledger", limit=5)
    assert [hit.commit_hash for hit in after] == [hit.commit_hash for hit in before]
    assert len(report.warnings) == 1


def test_an_empty_collection_leaves_the_search_to_the_stores_own_vectors(
    fake: FakeQdrant, store: Store, minilm: Any
) -> None:
    chosen, report = VectorSettings(backend="qdrant", qdrant_url=fake.url), Reporter()
    with mirror_stage.opened(store, chosen, minilm, create=True):
        pass
    with mirror_stage.for_search(store, chosen, minilm, report) as found:
        assert found is None
    assert "treering qdrant push" in report.warnings[0]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("flask", "flask-commits"),
        ("a b/ü..", "a-b-commits"),
        ("日本", "repository-commits"),
        ("..", "repository-commits"),
    ],
)
def test_a_collection_is_named_after_the_repository(store: Store, minilm: Any, name: str, wanted: str) -> None:
    store.set_fact("repo", name)
    opening: Any = mirror_stage.opened(store, VectorSettings(), minilm)
    assert opening.collection.name == wanted


# the command -----------------------------------------------------------------------------------------------------


def treering(repo: Repo, *arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, [*arguments, "--repo", str(repo.path)])
    assert done.exit_code == code, done.stderr
    return done


def test_the_command_pushes_pulls_and_verifies(fake: FakeQdrant, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    monkeypatch.setenv("TREERING_VECTORS_QDRANT_URL", fake.url)
    first = treering(repo, "qdrant", "push", "--json")
    count = json.loads(first.stdout)["points"]
    assert count > 30
    assert "missing" in treering(repo, "qdrant", "verify").stdout
    shutil.rmtree(repo.path / ".treering")
    monkeypatch.setattr(MiniLM, "batches", None)  # nothing is embedded from here on
    assert f"{count:,} vectors taken" in treering(repo, "qdrant", "pull").stdout
    assert json.loads(treering(repo, "qdrant", "push", "--json").stdout)["written"] == 0
    fake.engine.delete("project-commits", models.FilterSelector(filter=models.Filter()))
    empty = treering(repo, "qdrant", "verify", "--json", code=4)
    assert json.loads(empty.stdout)["missing"] == count
    assert "treering qdrant push" in empty.stderr
    for done in (first, empty):
        assert KEY not in done.stdout + done.stderr
    away = treering(repo, "qdrant", "push", "--qdrant-url", f"http://127.0.0.1:{free_port()}", code=4)
    assert "docker run" in away.stderr
    treering(repo, "qdrant", "push", "--backend", "edge")
    assert "0 different" in treering(repo, "qdrant", "verify", "--backend", "edge").stdout
    treering(repo, "qdrant", "push", "--backend", "pinecone", code=2)


def test_the_repository_cannot_choose_who_gets_the_key(repo: Repo) -> None:
    repo.write("treering.toml", '[vectors]\nqdrant_url = "http://example.com:6333"\n')
    with pytest.raises(UsageError, match="not the repository's to set") as caught:
        opening.place(repo.path)
    assert "TREERING_VECTORS_QDRANT_URL" in caught.value.hint


def test_the_bodies_that_the_docs_show_are_qdrants() -> None:
    text = (DOCS / "qdrant.md").read_text("utf-8")
    (body,) = re.findall(r"-d '(\{.*?\})'", text, re.DOTALL)
    request = json.loads(body)
    assert not fake_qdrant.problem("POST", fake_qdrant.COLLECTION + "/points/query", request)
    uuid.UUID(request["query"])
    (node,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    shown = json.loads(node)["parameters"]["jsonBody"]
    keys = set(re.findall(r"(\w+):", shown))
    assert keys <= set(models.QueryRequest.model_fields)
    grouped = {"query": request["query"], "using": "code", "group_by": "commit_hash", "limit": 5, "group_size": 1}
    TypeAdapter(models.QueryGroupsRequest).validate_python(grouped)
