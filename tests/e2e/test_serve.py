"""`treering serve` as a process: its address, its port, its signals, and what it leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from repositories import Repo

COMMAND = (sys.executable, "-P", "-m", "treering", "serve")
TOKENS = ("who-sees-a-part-0123", "who-sees-it-all-0123")


@contextmanager
def started(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it printed."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate()
        yield process, json.loads(line)["url"]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def indexed(indexed_story: Repo, tmp_path: Path) -> Repo:
    return indexed_story.copied(tmp_path / "project")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_answers_and_ends_when_it_is_told_to(indexed: Repo, sent: signal.Signals) -> None:
    with started("--repo", str(indexed.path), "--preload") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        found = httpx.post(f"{url}/v1/search", json={"query": "gateway bridge"}, trust_env=False).json()
        assert found[0]["subject"] == "Bridge receipts over the gateway"
        process.send_signal(sent)
        out, talk = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert f"serving project at {url}" in talk
        assert "Traceback" not in talk


def test_no_answer_that_was_begun_is_lost_when_it_ends_under_load(indexed: Repo) -> None:
    lost: list[str] = []
    answered = [0] * 8
    with started("--repo", str(indexed.path), "--preload") as (process, url):

        def ask(number: int) -> None:
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
                for turn in range(10_000):
                    try:
                        answer = client.post("/v1/search", json={"query": f"rule {number} {turn}"})
                    except httpx.ConnectError:
                        return  # the door is closed: nothing was accepted
                    except httpx.HTTPError as error:
                        lost.append(repr(error))
                        return
                    if answer.status_code != 200 or not answer.json():
                        lost.append(answer.text)
                    answered[number] += 1

        clients = [threading.Thread(target=ask, args=(number,)) for number in range(len(answered))]
        for client in clients:
            client.start()
        while sum(answered) < 40:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(60)
        assert process.wait(30) == 0
    assert not lost
    assert all(answered)


def test_a_taken_port_is_an_error_with_a_way_out(indexed: Repo) -> None:
    with started("--repo", str(indexed.path)) as (_, url):
        port = url.rpartition(":")[2]
        second = subprocess.run(
            [*COMMAND, "--repo", str(indexed.path), "--port", port], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 9
        assert f"cannot listen at 127.0.0.1:{port}" in second.stderr
        assert "--port" in second.stderr.splitlines()[-1]


def test_what_cannot_be_loaded_before_is_said_and_the_rest_is_served(story: Repo) -> None:
    with started("--repo", str(story.path), "--preload") as (process, url):
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 409
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=30)
    assert "warning: not loaded before it is asked for: there is no index in" in talk
    assert "Traceback" not in talk


def test_two_servers_may_read_one_store(indexed: Repo) -> None:
    with started("--repo", str(indexed.path)) as (_, one), started("--repo", str(indexed.path)) as (_, other):
        answers = [httpx.get(f"{url}/v1/search?query=ledger", trust_env=False).json() for url in (one, other)]
    assert answers[0] == answers[1]
    assert answers[0]


def test_others_are_served_with_a_token_only(indexed: Repo) -> None:
    refused = subprocess.run(
        [*COMMAND, "--repo", str(indexed.path), "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert refused.returncode == 2
    assert "TREERING_SERVE_TOKEN" in refused.stderr
    token = "a-token-of-twenty-eight-letters"
    with started("--repo", str(indexed.path), "--host", "0.0.0.0", TREERING_SERVE_TOKEN=token) as (_, url):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/status", trust_env=False).status_code == 401
        bearing = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}/v1/status", headers=bearing, trust_env=False).status_code == 200


def test_the_repositorys_own_settings_open_no_door(indexed: Repo) -> None:
    indexed.write("treering.toml", "[serve]\nhost = '0.0.0.0'\n")
    refused = subprocess.run([*COMMAND, "--repo", str(indexed.path)], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "`host` in [serve] is not the repository's to set" in refused.stderr


def test_several_repositories_need_several_stores_and_get_several_names(indexed: Repo, tmp_path: Path) -> None:
    other = indexed.copied(tmp_path / "elsewhere" / "project")
    third = indexed.copied(tmp_path / "third")
    refused = subprocess.run(
        [*COMMAND, "--repo", str(indexed.path), "--repo", str(third.path), "--store", str(tmp_path / "store")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "third would have the store of another one" in refused.stderr
    with started(*(word for repo in (indexed, other, third) for word in ("--repo", str(repo.path)))) as (_, url):
        found = httpx.get(f"{url}/v1/search?query=ledger&repository=third", trust_env=False).json()
        assert found
        names = [one["name"] for one in httpx.get(f"{url}/v1/repositories", trust_env=False).json()["repositories"]]
        assert names == ["project", "project-2", "third"]


def test_a_folder_beside_us_is_not_taken_for_ours(story: Repo, tmp_path: Path) -> None:
    """The index is made by another process, which must not read a package of the folder that we were started in."""
    story.write("treering/__init__.py", "")
    story.write("treering/__main__.py", f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--json"],
        cwd=story.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        httpx.post(f"{url}/v1/index", json={}, trust_env=False)
        end = time.monotonic() + 60
        while httpx.get(f"{url}/v1/index", trust_env=False).json()["state"] == "running":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert httpx.get(f"{url}/v1/index", trust_env=False).json()["state"] == "done"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert not (tmp_path / "ran").exists()


def test_a_fleet_is_served_to_who_may_see_it(indexed: Repo, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    for name in ("bank", "vault"):
        shutil.copytree(indexed.path / ".treering", fleet / "stores" / name)
    tokens = ";".join((f"{TOKENS[0]}=bank", f"{TOKENS[1]}=*"))
    with started("--fleet", str(fleet), "--preload", TREERING_SERVE_TOKENS=tokens) as (process, url):
        for token, seen in zip(TOKENS, ({"bank"}, {"bank", "vault"}), strict=True):
            answer = httpx.get(
                f"{url}/v1/search", params={"repository": "*", "query": "gateway bridge", "include_merges": True},
                headers={"authorization": f"Bearer {token}"}, trust_env=False,
            )  # fmt: skip
            assert {hit["repository"] for hit in answer.json()} <= seen, answer.text
            assert answer.json()
            told = httpx.get(f"{url}/v1/repositories", headers={"authorization": f"Bearer {token}"}, trust_env=False)
            assert set(told.json()["fleet"]) == seen
        process.send_signal(signal.SIGTERM)
        out, talk = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert f"serving 2 repositories of {fleet} at {url}" in talk
    assert not [token for token in TOKENS if token in talk]
    refused = subprocess.run([*COMMAND, "--fleet", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "there is no store in" in refused.stderr
