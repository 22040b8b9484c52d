"""Webhooks of a real server: verified, on the disk before they are answered, fetched, indexed, commented on."""

import hashlib
import hmac
import http.server
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_forge import TOKEN, FakeForge, fake_forge
from repositories import Repo, at_home
from serving import Served, serving
from treering import config, forging, opening
from treering.config import ForgeSettings
from treering.errors import ServiceError, UsageError
from treering.git import mirror as mirroring
from treering.operate.inbox import FILE
from treering.serve import webhooks
from treering.serve.webhooks import taking

SECRET, NEXT = "0123456789-of-the-forge", "9876543210-of-the-forge"
BEARER = "a-token-of-twenty-eight-letters"
ZEROS = "0" * 40


@dataclass
class Hooked:
    """A server that takes the webhooks of a repository, the repository, and the forge where it is."""

    served: Served
    work: Repo
    remote: Path
    mirror: Path
    store: Path
    forge: FakeForge
    sent: int = 0

    def deliver(self, said: object, event: str = "push", *, name: str = "", secret: str = SECRET) -> httpx.Response:
        self.sent += 1
        body = json.dumps(said).encode()
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "x-github-event": event, "x-github-delivery": name or f"delivery-{self.sent}", "host": "hooks.example",
            "x-hub-signature-256": f"sha256={digest}", "content-type": "application/json",
        }  # fmt: skip
        return self.served.client.post("/v1/webhooks/github", content=body, headers=headers)

    def push(self, ref: str = "main", *more: str) -> dict[str, Any]:
        """Push, and tell what GitHub would."""
        self.work.git("push", "--quiet", "--force", str(self.remote), *more, f"{ref}:{ref}")
        return pushed(self.work.git("rev-parse", ref), ref)

    def refs(self) -> dict[str, str]:
        return mirroring.tips(self.mirror)

    def standing(self) -> dict[str, Any]:
        told = self.served.get("/v1/webhooks", headers={"authorization": f"Bearer {BEARER}"}).json()
        (one,) = told["repositories"]
        assert (one["name"], one["served_as"]) == ("acme/shop", "shop")
        found: dict[str, Any] = one["deliveries"]
        return found

    def settled(self, *, failed: int = 0) -> dict[str, Any]:
        until = time.monotonic() + 120
        while (found := self.standing())["waiting"]:
            assert time.monotonic() < until, found
            time.sleep(0.05)
        assert found["failed"] == failed, found
        return found


def pushed(after: str, ref: str = "main") -> dict[str, Any]:
    full = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    return {"ref": full, "before": ZEROS, "after": after, "repository": {"full_name": "acme/Shop"}, "commits": []}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    with pytest.MonkeyPatch.context() as patch, fake_forge("github") as forge:
        at_home(patch, tmp_path_factory.mktemp("home"))
        work = Repo(tmp_path_factory.mktemp("work") / "shop")
        work.commit("Open the shop", shop__py="OPEN = True\n")
        remote = tmp_path_factory.mktemp("remote") / "shop.git"
        work.git("clone", "--quiet", "--bare", str(work.path), str(remote))
        for name, value in {
            "SECRETS": f"{SECRET},{NEXT}", "REPOSITORIES": f"acme/shop=file://{remote}", "TOKEN": TOKEN,
            "API": forge.api, "COMMENTS": "true",
        }.items():  # fmt: skip
            patch.setenv(f"TREERING_FORGE_{name}", value)
        settings = config.load(None, dict(os.environ)).forge
        mirrors = forging.mirrors(settings)
        places = opening.places([mirrors["acme/shop"].folder])
        patch.setattr(webhooks, "AGAIN", (0.2, 0.2, 0.2))
        patch.setattr(webhooks, "ABSENT", (0.1,))
        with serving(places, token=BEARER, forge=settings, taken=taking(mirrors, places)) as served:
            one = Hooked(served, work, remote, mirrors["acme/shop"].folder, places["shop"].folder, forge)
            until = time.monotonic() + 120
            while not (one.refs() and (one.store / "treering.db").exists()):
                assert time.monotonic() < until
                time.sleep(0.05)
            yield one


def indexed(hooked: Hooked) -> set[str]:
    with sqlite3.connect(f"file:{hooked.store / 'treering.db'}?mode=ro", uri=True) as db:
        return {row[0] for row in db.execute("SELECT hash FROM commits WHERE position IS NOT NULL")}


def test_a_push_is_fetched_and_searchable_and_a_repetition_does_nothing(hooked: Hooked) -> None:
    name = hooked.work.commit("Let the shop give vouchers", voucher__py="VOUCHERS = True\n")
    said = hooked.push()
    answer = hooked.deliver(said, name="first")
    assert (answer.status_code, answer.json()["state"]) == (202, "accepted")
    again = hooked.deliver(said, name="first")
    assert (again.status_code, again.json()["state"]) == (202, "duplicate")
    hooked.settled()
    assert name in indexed(hooked)
    found = hooked.served.post("/v1/search", {"query": "vouchers"}, headers={"authorization": f"Bearer {BEARER}"})
    assert found.json()[0]["commit_hash"] == name


def test_force_pushes_deleted_branches_and_tags_are_followed(hooked: Hooked) -> None:
    hooked.work.git("branch", "--force", "topic")
    first = hooked.work.commit("A try", topic__py="A = 1\n")
    hooked.work.git("tag", "v1")
    hooked.work.git("push", "--quiet", str(hooked.remote), "main:topic", "v1")
    hooked.work.git("reset", "--quiet", "--hard", "HEAD~1")
    second = hooked.work.commit("Another try", topic__py="A = 2\n")
    hooked.work.git("push", "--quiet", "--force", str(hooked.remote), "main:topic")
    assert hooked.deliver(pushed(first, "topic")).status_code == 202
    assert hooked.deliver(pushed(second, "topic"), secret=NEXT).status_code == 202
    assert hooked.deliver(pushed(first, "refs/tags/v1")).status_code == 202
    hooked.settled()
    assert hooked.refs()["refs/heads/topic"] == second
    assert hooked.refs()["refs/tags/v1"] == first
    hooked.work.git("push", "--quiet", str(hooked.remote), ":topic", ":v1")
    assert hooked.deliver(pushed(ZEROS, "topic")).json()["state"] == "accepted"
    hooked.settled()
    assert set(hooked.refs()) == {"refs/heads/main"}


def test_what_the_gate_committed_outlives_a_fetch(hooked: Hooked) -> None:
    name, ref = hooked.work.git("rev-parse", "main"), "refs/heads/treering/gate-1"
    hooked.work.git("push", "--quiet", str(hooked.mirror), f"{name}:{ref}")
    moved = hooked.work.commit("Go on", more__py="A = 1\n")
    hooked.work.git("push", "--quiet", str(hooked.remote), "main:main", "main:treering/gate-1", "main:treering/theirs")
    assert hooked.deliver(pushed(moved)).json()["state"] == "accepted"
    hooked.settled()
    assert hooked.refs() == {"refs/heads/main": moved, ref: name}
    hooked.work.git("push", "--quiet", str(hooked.mirror), f":{ref}")


def test_the_gate_takes_no_branch_of_a_mirror(hooked: Hooked) -> None:
    asked = {"patch": "diff --git a/x b/x\n", "ref": "main"}
    told = hooked.served.post("/v1/gate", asked, headers={"authorization": f"Bearer {BEARER}"})
    assert (told.status_code, told.json()["error"]["code"]) == (409, "mirror")


def test_a_commit_that_was_overwritten_before_its_fetch_ends(hooked: Hooked) -> None:
    assert hooked.deliver(pushed("b" * 40)).json()["state"] == "accepted"
    hooked.settled()
    with sqlite3.connect(hooked.store / FILE) as db:
        assert (
            db.execute("SELECT said FROM deliveries WHERE after = ?", ("b" * 40,)).fetchone()[0].startswith("that co")
        )


def test_a_forge_that_cannot_be_reached_is_tried_again(hooked: Hooked) -> None:
    name = hooked.work.commit("While it was away", away__py="A = 1\n")
    said = hooked.push()
    aside = hooked.remote.with_name("aside.git")
    hooked.remote.rename(aside)
    assert hooked.deliver(said).json()["state"] == "accepted"
    until = time.monotonic() + 60
    while "failed" not in (told := hooked.standing())["error"]:
        assert time.monotonic() < until, told
        time.sleep(0.02)
    aside.rename(hooked.remote)
    hooked.settled()
    assert name in indexed(hooked)


def test_a_request_is_commented_on_once(hooked: Hooked) -> None:
    hooked.forge.add_request(5, title="Give more vouchers", files=[("voucher.py", 1, 0)])
    said = {"action": "opened", "number": 5, "repository": {"full_name": "acme/shop"}}
    for action in ("opened", "synchronize", "labeled"):
        answer = hooked.deliver(said | {"action": action}, "pull_request").json()
        assert answer["state"] == ("ignored" if action == "labeled" else "accepted")
    hooked.settled()
    (comment,) = hooked.forge.comments
    assert "Let the shop give vouchers" in comment["body"]


@pytest.mark.parametrize(
    ("event", "said", "why"),
    [
        ("ping", {"zen": "x", "hook_id": 1}, "a ping"),
        ("star", {"action": "created", "repository": {"full_name": "acme/shop"}}, "nothing is done on star"),
        ("push", pushed("a" * 40) | {"repository": {"full_name": "acme/other"}}, "TREERING_FORGE_REPOSITORIES"),
    ],
)
def test_what_nothing_is_done_on_is_acknowledged_by_name(
    event: str, said: dict[str, Any], why: str, hooked: Hooked
) -> None:
    answer = hooked.deliver(said, event)
    assert (answer.status_code, answer.json()["state"], answer.json()["event"]) == (202, "ignored", event)
    assert why in answer.json()["why"]


def test_a_delivery_of_gitlab_is_taken_by_its_token(hooked: Hooked) -> None:
    said = {"object_kind": "push", "ref": "refs/heads/main", "project": {"path_with_namespace": "acme/shop"}}
    good = {"x-gitlab-token": NEXT, "idempotency-key": "lab-1"}
    assert hooked.served.post("/v1/webhooks/gitlab", said, headers=good).json()["state"] == "accepted"
    assert hooked.served.post("/v1/webhooks/gitlab", said, headers=good).json()["state"] == "duplicate"
    bad = hooked.served.post("/v1/webhooks/gitlab", said, headers={"x-gitlab-token": "x"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (401, "bad_signature")
    hooked.settled()


def test_a_wrong_signature_is_refused_and_nothing_kept(hooked: Hooked) -> None:
    before = hooked.standing()
    answer = hooked.deliver(pushed("a" * 40), secret=f"{SECRET}-not")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "bad_signature")
    assert SECRET not in answer.text
    assert hooked.standing() == before


def test_what_is_not_signed_or_too_large_is_not_read(hooked: Hooked) -> None:
    head = b"POST /v1/webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n"
    unsigned = hooked.served.raw(head + b"\r\n")
    assert unsigned.startswith(b"HTTP/1.1 401 ")
    large = hooked.served.raw(head + b"X-Hub-Signature-256: sha256=" + b"0" * 64 + b"\r\n\r\n")
    assert large.startswith(b"HTTP/1.1 413 ")


def test_a_signature_opens_no_other_path(hooked: Hooked) -> None:
    headers = {"x-hub-signature-256": "sha256=" + "0" * 64, "x-gitlab-token": SECRET}
    assert hooked.served.post("/v1/search", {"query": "x"}, headers=headers).status_code == 401
    assert hooked.served.get("/v1/webhooks", headers=headers).status_code == 401
    page = {"origin": "https://evil.example", "x-gitlab-token": SECRET}
    assert hooked.served.post("/v1/webhooks/gitlab", {}, headers=page).status_code == 403


def test_what_is_no_delivery_is_told(hooked: Hooked) -> None:
    answer = hooked.deliver([1])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_delivery")


def test_without_a_secret_there_are_no_webhooks(hooked: Hooked) -> None:
    with serving({"shop": opening.place(hooked.mirror, hooked.store)}) as served:
        answer = served.post("/v1/webhooks/github", {}, headers={"x-hub-signature-256": "sha256=" + "0" * 64})
        assert answer.status_code in (404, 405)


def test_no_log_and_no_answer_holds_a_secret(hooked: Hooked) -> None:
    said = "\n".join(hooked.served.said)
    for secret in (SECRET, NEXT, TOKEN, BEARER):
        assert secret not in said


def test_a_forge_that_is_away_at_the_start_is_fetched_when_it_is_back(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = repo.commit("Begin", a__py="x = 1\n")
    remote = tmp_path / "late.git"
    settings = ForgeSettings(secrets=(SECRET,), repositories=(f"acme/late=file://{remote}",))
    mirrors = forging.mirrors(settings)
    folder = mirrors["acme/late"].folder
    places = opening.places([folder])
    monkeypatch.setattr(webhooks, "AGAIN", (0.1,))
    with serving(places, forge=settings, taken=taking(mirrors, places)) as served:
        until = time.monotonic() + 60
        while not any("failed" in line for line in served.said):
            assert time.monotonic() < until
            time.sleep(0.02)
        repo.git("clone", "--quiet", "--bare", str(repo.path), str(remote))
        while mirroring.tips(folder) != {"refs/heads/main": name}:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_what_failed_can_be_sent_again(tmp_path: Path) -> None:
    one = forging.Delivery("github", "1", "push", "push", "acme/shop")
    with forging.Inbox(tmp_path) as inbox:
        assert [inbox.accept([one], now) for now in (1.0, 2.0)] == [[True], [False]]
        (waiting,) = inbox.due(3.0)
        inbox.settle([], [(waiting.number, "the forge is away")])
        assert [inbox.accept([one], now) for now in (4.0, 5.0)] == [[True], [False]]
        assert len(inbox.due(6.0)) == 1
        inbox.settle([(waiting.number, "indexed")])
        assert inbox.accept([one], 7.0) == [False]


def test_a_damaged_inbox_keeps_nobody_else_waiting(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    named = tuple(f"acme/{name}=file://{repo.copied(tmp_path / name).path}" for name in ("good", "bad"))
    settings = ForgeSettings(secrets=(SECRET,), repositories=named)
    mirrors = forging.mirrors(settings)
    places = opening.places([mirror.folder for mirror in mirrors.values()])
    places["bad"].folder.mkdir(parents=True)
    (places["bad"].folder / FILE).write_bytes(b"no database" * 1000)
    with serving(places, forge=settings, taken=taking(mirrors, places)) as served:
        for name, status in (("good", 202), ("bad", 503)):
            said = {"object_kind": "push", "project": {"path_with_namespace": f"acme/{name}"}}
            answer = served.post("/v1/webhooks/gitlab", said, headers={"x-gitlab-token": SECRET})
            assert answer.status_code == status
        assert any("webhooks of acme/bad" in line for line in served.said)
        assert {one["name"] for one in served.get("/v1/webhooks").json()["repositories"]} == {"acme/good", "acme/bad"}


def test_an_inbox_that_was_mended_takes_deliveries_again(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    remote = repo.copied(tmp_path / "shop")
    settings = ForgeSettings(secrets=(SECRET,), repositories=(f"acme/shop=file://{remote.path}",))
    mirrors = forging.mirrors(settings)
    places = opening.places([mirror.folder for mirror in mirrors.values()])
    file = places["shop"].folder / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 1000)
    with serving(places, forge=settings, taken=taking(mirrors, places)) as served:

        def deliver(number: int) -> httpx.Response:
            said = {"object_kind": "push", "project": {"path_with_namespace": "acme/shop"}}
            named = {"x-gitlab-token": SECRET, "idempotency-key": f"delivery-{number}"}
            return served.post("/v1/webhooks/gitlab", said, headers=named)

        def done() -> int:
            (told,) = served.get("/v1/webhooks").json()["repositories"]
            found: int = told["deliveries"]["done"]
            return found

        def until(true: Callable[[], bool]) -> None:
            end = time.monotonic() + 60
            while not true():
                assert time.monotonic() < end
                time.sleep(0.05)

        for number in range(2):  # as it is when the server starts, and while it is open
            (torn := tmp_path / "torn").write_bytes(b"no database" * 1000)
            torn.replace(file)
            refused = deliver(number)
            assert (refused.status_code, refused.json()["error"]["hint"][:15]) == (503, "delete the file")
            assert "damaged" in served.get("/v1/webhooks").json()["repositories"][0]["deliveries"]["error"]
            file.unlink()
            assert deliver(number).json()["state"] == "accepted"
            until(lambda: done() == 1)  # it is another file each time
        assert deliver(1).json()["state"] == "duplicate"
    with forging.Inbox(places["shop"].folder) as inbox:
        assert inbox.figures().done == 1


# the fetch ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked() -> Iterator[tuple[str, list[dict[str, str]], Callable[[int, str], None]]]:
    """An HTTP server that answers git with one status, and what it was asked."""
    requests: list[dict[str, str]] = []
    answer: list[Any] = [401, ""]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            self.send_response(int(answer[0]))
            if answer[1]:
                self.send_header("location", str(answer[1]))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield (
            f"http://127.0.0.1:{server.server_address[1]}",
            requests,
            lambda *told: answer.__setitem__(slice(0, 2), told),
        )
        server.shutdown()
        thread.join()


def test_a_token_reaches_its_host_and_no_error(asked: Any, tmp_path: Path) -> None:
    url, requests, _ = asked
    source = mirroring.remote(f"{url}/acme/shop.git")
    mirroring.make(tmp_path / "m.git", source)
    with pytest.raises(ServiceError, match=r"127.0.0.1 refuses the fetch") as error:
        mirroring.fetch(tmp_path / "m.git", source, user="x-access-token", token=TOKEN)
    assert requests[0]["authorization"].startswith("Basic ")
    assert TOKEN not in f"{error.value.message} {error.value.hint} {error.value.__cause__}"


def test_a_fetch_follows_no_redirect(asked: Any, tmp_path: Path) -> None:
    url, requests, answer = asked
    answer(302, f"{url}/elsewhere/info/refs")
    source = mirroring.remote(f"{url}/acme/shop.git")
    mirroring.make(tmp_path / "m.git", source)
    with pytest.raises(ServiceError):
        mirroring.fetch(tmp_path / "m.git", source, user="u", token=TOKEN)
    assert not any("elsewhere" in one["path"] for one in requests)


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "http://forge.example/a/b.git", "https://u:pass@forge.example/a.git", "https://token@forge.example/a",
     "--upload-pack=id", "/a/path", "git://forge.example/a.git", "https:///a", "file://", "http://[::1/a"],
)  # fmt: skip
def test_an_address_that_must_not_be_fetched_from_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as error:
        mirroring.remote(url)
    assert "pass" not in error.value.message.replace("password", "")


def test_a_fetch_that_is_unwanted_ends(repo: Repo, tmp_path: Path) -> None:
    name = repo.commit("Begin", a__py="x = 1\n")
    source = mirroring.remote(f"file://{repo.path}")
    mirroring.make(tmp_path / "m.git", source)
    got = mirroring.fetch(tmp_path / "m.git", source, wanted=[name, "c" * 40])
    assert (got.new, got.moved, got.gone, got.missing) == (1, 0, 0, ("c" * 40,))
    assert mirroring.fetch(tmp_path / "m.git", source) == mirroring.Fetched(0, 0, 0, ())


@pytest.mark.parametrize(
    ("repositories", "secrets", "said"),
    [
        (("acme/shop",), (SECRET,), "no OWNER/NAME=URL"),
        (("../../x/shop=https://a.example/b.git",), (SECRET,), "no OWNER/NAME=URL"),
        (("acme/shop=https://a.example/b.git", "Acme/Shop=https://a.example/c.git"), (SECRET,), "twice"),
        (("acme/shop=https://a.example/b.git",), (), "no secret"),
        ((), ("short",), "too weak"),
    ],
)
def test_a_setting_that_cannot_be_is_named(repositories: tuple[str, ...], secrets: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        forging.mirrors(ForgeSettings(repositories=repositories, secrets=secrets))


def test_a_repository_cannot_set_where_its_forge_is(repo: Repo) -> None:
    repo.write("treering.toml", '[forge]\napi = "https://evil.example/api/v4"\n')
    with pytest.raises(UsageError, match="not the repository's to set"):
        opening.place(repo.path)
