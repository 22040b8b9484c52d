"""What runs leave behind: figures in the store, lines in a log, alerts to whoever is to be told, traces, /metrics."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from repositories import Repo, at_home, tell_story
from serving import serving
from tiny import tiny_base
from treering import benching, config, improving, opening, operations
from treering.errors import ServiceError, StoreError, UsageError
from treering.opening import Place
from treering.operate import alerts
from treering.operate.journal import keep_up
from treering.report import Reporter
from treering.store import Store

COMMAND = [sys.executable, "-P", "-m", "treering"]


@contextmanager
def answering(*statuses: int, path: str = "") -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server on the loopback that answers with these statuses, the last one for ever; and what it was sent."""
    got: list[tuple[str, bytes]] = []
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            status = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{path}", got
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = tell_story(Repo(tmp_path_factory.mktemp("user") / "project"))
        operations.index(opening.place(repo.path), Reporter())
        return repo


@pytest.fixture
def place(indexed: Repo, tmp_path: Path) -> Place:
    return opening.place(indexed.copied(tmp_path / "project").path)


def slow(where: Place, *p99: float) -> None:
    """Servers that told how long their searches took."""
    with where.store() as store:
        begun = len(list(store.runs(stages=["serve"])))
        for number, one in enumerate(p99, start=begun):
            told = {"searches": 100, "p50": 0.01, "p99": one + 0.0001 * (number % 7)}
            store.log_run("serve", 1_700_000_000 + 600 * number, told)


def with_settings(where: Place, **monitor: object) -> Place:
    return opening.place(where.source.worktree or Path(), None, {"monitor": monitor})


# figures ---------------------------------------------------------------------------------------------------------


def test_runs_leave_their_figures_and_a_bench_its_cases(place: Place) -> None:
    benching.bench(place, Reporter(), questions=None, most=20)
    benching.bench(place, Reporter(), questions=None, most=20)
    improving.record_searches(place, time.time() - 10, [0.01] * 99 + [0.5])
    trend = improving.monitor(place)
    names = {one.name: one for one in trend.series}
    assert {"store", "vectors", "p50", "p99", "mrr", "recall"} <= set(names)
    assert len(names["mrr"].points) == 2
    assert names["mrr"].points[0].value == names["mrr"].points[1].value
    assert names["mrr"].points[0].cases >= 1
    with place.store() as store:
        told = store.last_runs()["bench"]
        assert "oracle" not in json.dumps(told)  # a case is named, not quoted
    assert (place.folder / "reports" / "trend.json").is_file()
    assert "What it learned over time" in (place.folder / "reports" / "latest.html").read_text()
    assert improving.monitor(place, since="2999-01-01").series == ()


def test_what_a_store_that_may_only_be_read_cannot_remember_costs_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise StoreError("attempt to write a readonly database")

    monkeypatch.setattr(Store, "log_run", refused)
    improving.record_searches(place, time.time(), [0.01])
    report = Reporter()
    benching.bench(place, report, questions=None, most=5)
    assert not report.warnings


def test_only_so_many_runs_of_a_stage_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treering.store.database.RUNS_KEPT", 3)
    with Store(tmp_path) as store:
        store.log_run("index", 1, {"commits": 1})
        for number in range(5):
            store.log_run("serve", number, {"searches": number})
        assert [run.told for run in store.runs()] == [{"commits": 1}, *({"searches": one} for one in (2, 3, 4))]
        assert store.last_runs()["serve"]["searches"] == 4
        assert [run.started for run in store.runs(since=3)] == [3, 4]


# the log ---------------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_run_has_one_line_in_the_log_and_a_second_look_adds_none(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "runs.jsonl"
    operations.index(with_settings(place, log=str(log)), Reporter())
    told = lines(log)
    assert [one["stage"] for one in told] == ["scrape", "index"]
    assert told[1]["repo"] == "project"
    assert log.stat().st_mode & 0o777 == 0o600
    operations.index(with_settings(place, log=str(log)), Reporter())
    assert lines(log) == told
    benching.bench(with_settings(place, log=str(log)), Reporter(), questions=None, most=20)
    assert [one["stage"] for one in lines(log)] == ["scrape", "index", "bench"]
    assert "cases" not in lines(log)[-1]


def test_a_log_that_becomes_too_large_is_turned_over_and_loses_no_line(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    with Store(tmp_path / "store") as store:
        store.set_fact("repo", "project")
        for number in range(12):
            store.log_run("serve", number, {"searches": number, "padding": "x" * 100})
            assert keep_up(store, log, 1500) == 1
        assert keep_up(store, log, 1500) == 0
        store.log_run("serve", 12, {"huge": "x" * 100_000})
        keep_up(store, log, 1500)
        last = store.newest_run()
    assert log.stat().st_size <= 1500
    told = lines(tmp_path / "runs.jsonl.1") + lines(log)
    assert told[-1] == {"repo": "project", "run": last, "stage": "serve", "at": "1970-01-01T00:00:12Z",
                        "seconds": told[-1]["seconds"]}  # fmt: skip
    assert [one["run"] for one in told] == list(range(told[0]["run"], last + 1))  # type: ignore[call-overload]


def test_a_log_that_cannot_be_written_costs_the_run_nothing(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = Reporter()
    operations.index(with_settings(place, log=str(tmp_path / "file" / "runs.jsonl")), report)
    assert "the log of runs" in report.warnings[-1]
    (tmp_path / "link").symlink_to(tmp_path / "file")
    operations.index(with_settings(place, log=str(tmp_path / "link")), report)
    assert (tmp_path / "file").read_text() == ""


def test_a_repository_chooses_no_log_no_webhook_and_no_command(story: Repo) -> None:
    given = {"log": '"x"', "webhook": '"x"', "command": '"x"', "log_bytes": "2000", "false_alarms": "0.5"}
    for key, value in given.items():
        story.write("treering.toml", f"[monitor]\n{key} = {value}\n")
        with pytest.raises(UsageError, match=key):
            opening.place(story.path)


# alerts ----------------------------------------------------------------------------------------------------------


def test_an_alert_is_posted_once_until_it_is_over(place: Place) -> None:
    slow(place, *[0.02] * 20, *[0.4] * 5)
    with answering(200, path="/hook?token=secret") as (url, got):
        where = with_settings(place, webhook=url)
        for _ in range(2):
            improving.alert(where, improving.monitor(where), Reporter())
        (first,) = got
        assert first[0] == "/hook?token=secret"
        told = json.loads(first[1])
        assert (told["kind"], told["series"], told["repo"]) == ("worse", "p99", "project")
        assert told["before"] < 0.03 < 0.3 < told["newest"]
        assert "got worse" in told["text"]
        slow(place, *[0.02] * 40)
        assert [one.kind for one in improving.alert(where, improving.monitor(where), Reporter())] == ["over"]
        assert improving.alert(where, improving.monitor(where), Reporter()) == []
        assert len(got) == 2


def test_an_alert_that_is_not_taken_is_tried_again_and_then_at_the_next_look(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    slow(place, *[0.02] * 20, *[0.4] * 5)
    with answering(500, 503, 200, path="/secret") as (url, got):
        where = with_settings(place, webhook=url)
        assert len(improving.alert(where, improving.monitor(where), Reporter())) == 1
        assert len(got) == alerts.TRIES
    (place.folder / alerts.FILE).unlink()
    report = Reporter()
    assert improving.alert(where, improving.monitor(where), report) == []  # nobody is there
    assert "the webhook at 127.0.0.1 took no alert" in report.warnings[0]
    assert "secret" not in report.warnings[0]
    with answering(200) as (url, got):
        where = with_settings(place, webhook=url)
        assert len(improving.alert(where, improving.monitor(where), Reporter())) == 1


def test_what_leads_elsewhere_or_is_refused_is_not_followed_nor_tried_again() -> None:
    for status in (302, 403):
        with answering(status) as (url, got), pytest.raises(ServiceError, match=f"it answered {status}"):
            alerts.post(url, b"{}", 5)
        assert len(got) == 1
    for wrong in ("file:///etc/passwd", "hook", "ftp://example.com/"):
        with pytest.raises(UsageError, match="no address"):
            alerts.post(wrong, b"{}", 5)


def test_a_program_gets_the_alert_on_stdin_without_a_shell_and_without_our_keys(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in config.KEYS:
        monkeypatch.setenv(name, "secret")
    program = tmp_path / "a program.py"
    program.write_text(
        "import json, os, sys\n"
        "told = json.load(sys.stdin)\n"
        "told = {'given': sys.argv[2], 'series': told['series'], 'key': 'secret' in os.environ.values()}\n"
        "open(sys.argv[1], 'a').write(json.dumps(told) + '\\n')\n"
    )
    slow(place, *[0.02] * 20, *[0.4] * 5)
    where = with_settings(place, command=f"{sys.executable} '{program}' '{tmp_path / 'got'}' '$(touch x); *'")
    assert len(improving.alert(where, improving.monitor(where), Reporter())) == 1
    assert improving.alert(where, improving.monitor(where), Reporter()) == []
    assert lines(tmp_path / "got") == [{"given": "$(touch x); *", "series": "p99", "key": False}]


def test_a_program_that_fails_or_never_ends_is_named_and_what_it_started_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="code 3"):
        alerts.hand("sh -c 'exit 3'", b"{}", 10)
    with pytest.raises(ServiceError, match="cannot run"):
        alerts.hand("no-such-program-of-anyone", b"{}", 10)
    for wrong in ("", "sh '"):
        with pytest.raises(UsageError):
            alerts.hand(wrong, b"{}", 10)
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=r"over 0\.5 s"):
        alerts.hand(f"sh -c 'sleep 1000 & echo $! > {tmp_path / 'child'}; wait'", b"{}", 0.5)
    assert time.monotonic() - begun < 30
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child))


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_looks_at_once_tell_an_alert_once(place: Place) -> None:
    slow(place, *[0.02] * 20, *[0.4] * 5)
    with answering(200) as (url, got):
        where = with_settings(place, webhook=url)
        trend = improving.monitor(where)
        looks = [threading.Thread(target=improving.alert, args=(where, trend, Reporter())) for _ in range(4)]
        for look in looks:
            look.start()
        for look in looks:
            look.join()
        assert len(got) == 1


# the faces -------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_row_for_each_figure_and_tells_whoever_is_to_be_told(place: Place) -> None:
    slow(place, *[0.02] * 20, *[0.4] * 5)
    repo = str(place.source.worktree)
    printed = subprocess.run([*COMMAND, "monitor", "--repo", repo], capture_output=True, text=True, check=True).stdout
    row = next(line for line in printed.splitlines() if line.startswith("a search, the slowest of 100"))
    assert "▁" in row
    assert "█" in row
    assert "worse" in row
    assert printed.splitlines()[-1].startswith("Nothing was learned yet. A search, the slowest of 100: worse")
    with answering(200) as (url, got):
        environment = os.environ | {"TREERING_MONITOR_WEBHOOK": url}
        done = subprocess.run(
            [*COMMAND, "monitor", "--json", "--alert", "--repo", repo],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        assert json.loads(done.stdout)["alerts"] == ["p99"]
        assert "told: project: a search, the slowest of 100 got worse" in done.stderr
        assert len(got) == 1


def test_searches_of_a_server_become_figures_that_prometheus_and_the_page_are_told(place: Place) -> None:
    with serving({"project": place}) as served:
        for query in ("oracle rule", "ledger", "a secret question"):
            assert served.post("/v1/search", {"query": query}).status_code == 200
        assert served.get("/v1/monitor").json()["repo"] == "project"
    with place.store() as store:
        (run,) = store.runs(stages=["serve"])
        assert run.told["searches"] == 3
        assert 0 < run.told["p50"] <= run.told["p99"]
        assert "secret" not in json.dumps(run.told)
    slow(place, *[0.02] * 20, *[0.4] * 5)
    with serving({"project": place}) as served:
        page = served.get("/metrics").text
        assert 'treering_series{repository="project",series="store"}' in page
        assert 'treering_series_worse{repository="project",series="p99"} 1.0' in page
        assert 'treering_series_worse{repository="project",series="p50"} 0.0' in page
        assert 'treering_trainings{promoted="true",repository="project"} 0.0' in page
        asked = served.post("/v1/monitor", {"since": "no day"})
        assert asked.status_code == 400


def test_a_model_is_brought_up_to_date_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = tell_story(Repo(tmp_path / "project"))
    for name, value in {
        "MODEL": str(tiny_base(tmp_path / "base")),
        "METHOD": "full",
        "GPU": "false",
        "MAX_STEPS": "5",
    }.items():
        monkeypatch.setenv(f"TREERING_TRAIN_{name}", value)
    monkeypatch.setenv("TREERING_TOKENS_SEQUENCE_LENGTH", "64")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    where = opening.place(repo.path)
    with serving({"project": where}) as served:
        assert served.get("/v1/learn").json()["state"] == "none"
        assert served.post("/v1/learn", {"after": 0}).status_code == 400
        begun = served.post("/v1/learn", {"after": 100, "index": True})
        assert (begun.status_code, begun.json()["state"]) == (202, "running")
        assert served.post("/v1/learn").json()["id"] == begun.json()["id"]  # never two at once
        told = ended(served.client)
        assert (told["state"], told["outcome"], told["promoted"]) == ("done", "waiting", False)
        assert (told["new"], told["missing"]) == (23, 77)
        assert served.get("/v1/status").json()["indexed"] == 23
        served.post("/v1/learn", {"after": 10, "minutes": 1.5})
        told = ended(served.client)
        assert (told["state"], told["outcome"], told["promoted"]) == ("done", "first", True)
        assert told["verdict"]
        assert told["model"] == told["trained"]["model"] == Path(served.get("/v1/status").json()["model"]).name
        served.post("/v1/learn", {"after": 10})
        assert ended(served.client)["outcome"] == "waiting"


def ended(client: httpx.Client) -> dict[str, Any]:
    until(lambda: client.get("/v1/learn").json()["state"] != "running", 240)
    told: dict[str, Any] = client.get("/v1/learn").json()
    return told


# traces ----------------------------------------------------------------------------------------------------------


def test_operations_and_requests_are_traced_where_that_is_asked_for_without_what_is_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    repo = str(place.source.worktree)
    with answering(200) as (url, got):
        environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "ours"}
        subprocess.run([*COMMAND, "search", "confidential", "--repo", repo], check=True, env=environment,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        (command,) = got
        assert command[0] == "/v1/traces"
        assert b"treering search" in command[1]
        assert b"ours" in command[1]
        server = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", "--json", "--repo", repo], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with server:
            assert server.stdout
            address = json.loads(server.stdout.readline())["url"]
            with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
                client.post("/v1/search", json={"query": "confidential"})
                client.get("/v1/search?query=confidential")
                client.get("/confidential")
            server.send_signal(signal.SIGTERM)
        told = b"".join(body for _, body in got)
        for wanted in (b"http.route", b"/v1/search", b"http.response.status_code", b"POST", b"treering serve"):
            assert wanted in told
        assert b"confidential" not in told


def test_a_collector_that_is_gone_costs_some_seconds_at_most_and_no_answer(place: Place) -> None:
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    begun = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "search", "oracle", "--json", "--repo", str(place.source.worktree)],
        check=True, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout)
    assert time.monotonic() - begun < 60


def test_without_a_collector_nothing_of_traces_is_imported(place: Place) -> None:
    code = (
        "import sys; from treering.cli.main import main; main(['search', 'oracle', '--json'], standalone_mode=False);"
        "sys.exit(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=place.source.worktree, check=True, stdout=subprocess.DEVNULL)
