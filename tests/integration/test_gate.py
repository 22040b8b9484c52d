"""The gate on real repositories with real sandboxes: what passes is committed, and nothing else happens to anybody."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from repositories import Repo
from serving import Served, serving
from treering import gating, opening
from treering.cli.main import main
from treering.errors import DiskFull, NoSandbox, RepositoryError, UsageError
from treering.gating import Verdict
from treering.operate import running

pytestmark = pytest.mark.sandbox


@pytest.fixture(autouse=True)
def _sandbox() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: no gate is tried")


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the gate's own, to be looked into."""
    made = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(made))
    monkeypatch.setenv("TMPDIR", str(made))
    return made


@pytest.fixture
def project(repo: Repo) -> Repo:
    repo.commit("Start", value__py="VALUE = 1\n", tests_0_check__sh="grep -q VALUE value.py\n", data__bin=b"\0\1\2")
    return repo


def patch_of(repo: Repo, **files: str | bytes | None) -> bytes:
    """What `git diff` writes for a change, which is made in a copy."""
    with tempfile.TemporaryDirectory(dir=repo.path.parent) as folder:
        copy = repo.copied(Path(folder) / "copy")
        copy.git("reset", "--quiet", "--hard")
        copy.git("clean", "--quiet", "-dfx")
        for name, content in files.items():
            copy.write(name.replace("_0_", "/").replace("__", "."), content)
        copy.git("add", "--all")
        return copy.git("diff", "--cached", "--no-renames", "--binary").encode() + b"\n\n"


def added(path: str, content: str = "evil", mode: str = "100644") -> bytes:
    """A patch that adds a file by any name."""
    body = "".join(f"+{line}\n" for line in content.split("\n"))
    quoted = "".join(
        chr(byte) if (47 < byte < 123 and byte != 92) or byte in b". ~" else f"\\{byte:03o}" for byte in path.encode()
    )
    return (
        f'diff --git "a/{quoted}" "b/{quoted}"\nnew file mode {mode}\n--- /dev/null\n+++ "b/{quoted}"\n'
        f"@@ -0,0 +1,{body.count(chr(10))} @@\n{body}\\ No newline at end of file\n"
    ).encode()


def gate(repo: Repo, patch: bytes, *command: str, gate: dict[str, object] | None = None, **more: Any) -> Verdict:
    where = opening.place(repo.path, None, {"gate": {"seconds": 20, **(gate or {})}})
    return gating.gate(where, patch, command or ("true",), **more)


GOOD: dict[str, str | bytes | None] = {"value__py": "VALUE = 2\n"}


def state(repo: Repo) -> tuple[str, ...]:
    """What the owner sees of their repository: refs, index and work tree."""
    return (
        repo.git("for-each-ref"),
        repo.git("status", "--porcelain", "--ignored"),
        repo.git("diff", "HEAD"),
        repo.git("ls-files", "--stage"),
    )


@pytest.fixture
def untouched(project: Repo, temporary: Path) -> Iterator[Repo]:
    """A repository of which nothing may change, whatever is tried."""
    before = state(project)
    objects = sorted(str(one) for one in (project.path / ".git" / "objects").rglob("*"))
    yield project
    assert state(project) == before
    assert sorted(str(one) for one in (project.path / ".git" / "objects").rglob("*")) == objects
    assert list(temporary.iterdir()) == []


def test_what_passes_is_committed_to_a_new_branch_and_the_owner_sees_no_difference(
    project: Repo, temporary: Path
) -> None:
    patch = patch_of(project, value__py="VALUE = 2\n", more_0_new__txt="new\n")
    project.write("value.py", "VALUE = 'being worked on'\n")
    before = project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")
    found = gate(project, patch, "sh", "tests/check.sh")
    assert found.verdict == "passed"
    assert found.ref == f"refs/heads/treering/gate-{found.commit[:12]}"
    assert project.git("rev-parse", found.ref) == found.commit
    assert project.git("rev-parse", f"{found.commit}^{{tree}}") == found.tree
    assert project.git("rev-parse", f"{found.commit}^") == found.base == before[1]
    assert project.git("show", f"{found.ref}:value.py") == "VALUE = 2"
    assert (
        project.git("log", "-1", "--format=%an <%ae> %cn", found.ref) == "treering gate <gate@localhost> treering gate"
    )
    assert found.files == ("more/new.txt", "value.py")
    assert (project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")) == before
    assert project.git("fsck", "--strict", "--unreachable") == ""
    assert list(temporary.iterdir()) == []


def test_what_fails_changes_nothing(untouched: Repo) -> None:
    found = gate(untouched, patch_of(untouched, value__py="OTHER = 1\n"), "sh", "tests/check.sh")
    assert (found.verdict, found.exit_code, found.commit, found.ref) == ("failed", 1, "", "")


def test_the_tree_that_is_tested_is_the_tree_of_the_patch(project: Repo) -> None:
    tell = "cat value.py; test -x run.sh; ls -A; test ! -e .git"
    patch = patch_of(project, **GOOD) + added("run.sh", "#!/bin/sh", "100755")
    found = gate(project, patch, "sh", "-ec", tell)
    assert found.verdict == "passed"
    assert found.log.split() == ["VALUE", "=", "2", "data.bin", "run.sh", "tests", "value.py"]


def test_tests_that_rewrite_their_sources_do_not_change_what_is_committed(project: Repo) -> None:
    found = gate(project, patch_of(project, **GOOD), "sh", "-c", "echo evil > value.py; rm -r tests; echo x > new")
    assert found.verdict == "passed"
    assert project.git("show", f"{found.commit}:value.py") == "VALUE = 2"
    assert project.git("diff", "--name-only", found.base, found.commit) == "value.py"


def test_attributes_change_no_byte_of_what_is_tested(project: Repo) -> None:
    project.commit(
        "Attributes",
        __gitattributes="*.txt text eol=crlf\n*.py filter=evil ident\nhidden export-ignore\n",
        a__txt="one\ntwo\n", hidden="here\n",
    )  # fmt: skip
    project.git("config", "filter.evil.smudge", "touch smudged; cat")
    found = gate(project, added("new", "1"), "sh", "-c", "grep -c $(printf '\\r') a.txt; cat hidden; ls")
    assert found.log.split()[:2] == ["0", "here"]
    assert "smudged" not in found.log


def test_a_branch_that_is_named_moves_and_its_work_tree_is_told_of(project: Repo) -> None:
    project.write("notes.txt", "mine\n")
    found = gate(project, patch_of(project, **GOOD), ref="main", message="Two\n\nbecause")
    assert (found.verdict, found.ref) == ("passed", "refs/heads/main")
    assert project.git("log", "-1", "--format=%B", "main").strip() == "Two\n\nbecause"
    assert project.git("reflog", "-1", "--format=%gs", "main") == "treering gate: tested"
    assert (project.path / "value.py").read_text() == "VALUE = 1\n"
    assert "M  value.py" in project.git("status", "--porcelain")
    project.write("notes.txt", "mine\n")
    subprocess.run(found.see, shell=True, check=True)  # noqa: S602  what the owner is told to run
    assert (project.path / "value.py").read_text() == "VALUE = 2\n"
    assert project.git("status", "--porcelain") == "?? notes.txt"


def test_a_new_branch_begins_where_head_is_and_a_second_patch_goes_on_from_it(project: Repo) -> None:
    project.git("checkout", "--quiet", "--detach")
    first = gate(project, patch_of(project, **GOOD), ref="agent/one")
    second = gate(project, added("b.txt", "1"), ref="agent/one")
    assert (first.verdict, second.verdict) == ("passed", "passed")
    assert project.git("rev-parse", f"{second.commit}^") == first.commit


def test_a_branch_that_moves_meanwhile_is_left_alone(project: Repo) -> None:
    patch, other = patch_of(project, **GOOD), project.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "meanwhile")
    project.git("branch", "work")
    asked = []

    def move() -> bool:
        asked.append(1)
        if len(asked) == 1:
            project.git("update-ref", "refs/heads/work", other)
        return True

    found = gate(project, patch, "sleep", "0.3", ref="work", wanted=move)
    assert (found.verdict, found.commit) == ("moved", "")
    assert found.ref in found.reason
    assert project.git("rev-parse", "work") == other


def test_two_gates_for_one_branch_at_once_let_one_through(project: Repo) -> None:
    project.git("branch", "work")
    patches = [added(f"{number}.txt", "1") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda patch: gate(project, patch, "sleep", "1", ref="work"), patches))
    assert sorted(one.verdict for one in found) == ["moved", "moved", "moved", "passed"]
    assert project.git("rev-list", "--count", "main..work") == "1"


NAP = f"sleep 86{os.getpid()}"
"""Of this process alone, so that what is left of it can be told."""
HOSTILE = {
    "hang": ("trap '' TERM INT HUP; while :; do sleep 1; done", "timed_out"),
    "hang behind others": (f"(setsid {NAP}0 &) ; setsid {NAP}", "timed_out"),
    "daemonize": (f"(setsid {NAP} >/dev/null 2>&1 &); exit 9", "failed"),
    "fork": (f"f() {{ f | f & }}; f; {NAP}", "failed"),
    "threads": (f"for i in $(seq 300); do {NAP} & done; wait", "failed"),
    "write outside": ("for to in /usr /etc / $HOME /tmp ..; do echo x > $to/x; done; exit 1", "failed"),
    "write a great deal": ("for to in big /tmp/big; do dd if=/dev/zero of=$to bs=1M count=99; done", "failed"),
    "say a great deal": ("yes $(seq 200)", "timed_out"),
    "die": ("kill -9 $$", "failed"),
    "kill all": ("kill -9 -1; exit 5", "failed"),
    "no such program": ("exec /nowhere/at/all", "failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tests_get_the_right_verdict_and_leave_nothing(untouched: Repo, name: str) -> None:
    script, verdict = HOSTILE[name]
    limits: dict[str, object] = {"seconds": 1.5, "processes": 64, "memory_mb": 256, "disk_mb": 16}
    patch = patch_of(untouched, **GOOD)
    started = time.monotonic()
    found = gate(untouched, patch, "sh", "-c", script, gate=limits)
    assert found.verdict == verdict, found
    assert time.monotonic() - started < 15
    assert len(found.log) < 70_000
    assert not left_running(NAP)


def test_one_that_leaves_no_time_to_look_is_told_by_what_it_does_and_not_by_the_time(
    untouched: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []

    def look(*_: object) -> str | None:
        looks.append(None)
        return "processes" if len(looks) > 1 else None

    monkeypatch.setattr(running._Watched, "look", look)
    monkeypatch.setattr(running, "TICK", 99)  # after the first look the next comes when time is up
    found = gate(
        untouched, patch_of(untouched, **GOOD), "sh", "-c", "while :; do echo x; sleep 0.1; done", gate={"seconds": 1}
    )
    assert (found.verdict, "processes" in found.reason) == ("failed", True)


def left_running(words: str) -> list[str]:
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in told.splitlines() if line.startswith(words)]


@pytest.mark.parametrize("processes", [1, 6])
def test_tests_that_eat_memory_fail(untouched: Repo, processes: int) -> None:
    eat = f"""
import os, time
for _ in range({processes - 1}):
    if not os.fork(): break
eaten = bytearray(b"x") * ({600 // processes} << 20)
time.sleep(30)
"""
    found = gate(untouched, patch_of(untouched, **GOOD), "/usr/bin/python3", "-c", eat, gate={"memory_mb": 256})
    assert found.verdict == "failed"
    assert ("more than 256 MB" in found.reason) if processes > 1 else ("MemoryError" in found.log)
    assert found.seconds < 10


def test_a_passing_test_that_left_a_daemon_passes_and_the_daemon_is_gone(project: Repo) -> None:
    found = gate(project, patch_of(project, **GOOD), "sh", "-c", f"(setsid {NAP} >/dev/null 2>&1 &); exit 0")
    assert found.verdict == "passed"
    assert not left_running(NAP)


def test_there_is_no_network_no_home_no_variable_and_no_other_process(
    project: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-owner")
    home = Path(os.environ["HOME"])
    (home / "secret").write_text("mine")
    look = f"""
import os, socket
print(sorted(os.environ))
print("home", os.path.exists({str(home / "secret")!r}), os.listdir(os.environ["HOME"]))
print("git", os.path.exists(".git"), os.path.exists("/etc/shadow"), os.path.exists("/var"))
print("alone", sum(name.isdigit() for name in os.listdir("/proc")) < 6)
print("caps", [line for line in open("/proc/self/status") if line.startswith("CapEff")])
for address in ("192.0.2.1", "127.0.0.1"):
    try:
        socket.create_connection((address, 80), timeout=1)
    except OSError as error:
        print(error)
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/swappiness"):
    try:
        open(path, "w").write("x")
        print("WRITTEN", path)
    except OSError as error:
        pass
"""
    found = gate(project, patch_of(project, **GOOD), "/usr/bin/python3", "-c", look)
    assert found.verdict == "passed", found.log
    assert "ANTHROPIC" not in found.log
    assert "home False []" in found.log
    assert "git False False False" in found.log
    assert "alone True" in found.log
    assert "0000000000000000" in found.log
    assert "unreachable" in found.log
    assert "WRITTEN" not in found.log


def test_secrets_are_taken_out_of_the_log_and_no_line_of_it_is_cut(project: Repo) -> None:
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    say = f"for i in $(seq 3000); do echo {token}; done"
    found = gate(project, patch_of(project, **GOOD), "sh", "-c", say, gate={"log_bytes": 2000})
    assert token[:12] not in found.log
    assert found.secrets > 10
    assert found.log_left_out > 100_000
    assert f"[... {found.log_left_out} bytes ...]" in found.log


def test_what_tests_may_read_is_there_and_cannot_be_written(project: Repo, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "data").write_text("given")
    (project.path / "node_modules").mkdir()
    (project.path / "node_modules" / "x").write_text("module")
    (project.path / ".git" / "info" / "exclude").write_text("node_modules\n")
    look = f"cat {tmp_path}/more/data node_modules/x; echo > {tmp_path}/more/new; echo > node_modules/y"
    found = gate(
        project, patch_of(project, **GOOD), "sh", "-c", look, readable=(str(tmp_path / "more"), "node_modules")
    )
    assert found.log.startswith("givenmodule")
    assert found.log.count("Read-only file system") == 2
    assert not (tmp_path / "more" / "new").exists()
    with pytest.raises(UsageError, match="as the patch leaves it"):
        gate(project, patch_of(project, **GOOD), readable=("tests",))
    with pytest.raises(UsageError, match="nothing/here"):
        gate(project, patch_of(project, **GOOD), readable=("nothing/here",))


def test_the_interpreter_of_an_environment_is_there_with_its_packages(project: Repo) -> None:
    found = gate(project, patch_of(project, **GOOD), sys.executable, "-c", "import pytest, value; print(value.VALUE)")
    assert (found.verdict, found.log) == ("passed", "2\n")


PROTECTED: dict[str, tuple[dict[str, str | bytes | None], bytes]] = {
    "a change": ({"tests_0_check__sh": "true\n"}, b""),
    "a deletion": ({"tests_0_check__sh": None}, b""),
    "another one": ({}, added("tests/conftest.py")),
    "in another case": ({}, added("Tests/check.sh")),
    "unseen characters": ({}, added("te\u200csts/check.sh")),
    "a mode": ({}, b"diff --git a/tests/check.sh b/tests/check.sh\nold mode 100644\nnew mode 100755\n"),
    "a rename": (
        {},
        (
            b"diff --git a/tests/check.sh b/away.sh\nsimilarity index 100%\nrename from tests/check.sh\n"
            b"rename to away.sh\n"
        ),
    ),
    "a rename into": (
        {},
        (
            b"diff --git a/value.py b/tests/value.py\nsimilarity index 100%\nrename from value.py\n"
            b"rename to tests/value.py\n"
        ),
    ),
    "a link in its place": (
        {"tests_0_check__sh": None},
        added("tests", "elsewhere", "120000") + added("elsewhere/check.sh", "true"),
    ),
    "the settings": ({}, added("treering.toml", "[gate]")),
    "settings below": ({}, added("sub/TREERING.toml", "[gate]")),
    "attributes": ({}, added("src/.gitattributes", "* filter=lfs")),
    "submodules": ({}, added(".gitmodules", "[submodule]")),
}


@pytest.mark.parametrize("name", PROTECTED)
def test_a_patch_that_touches_what_is_protected_runs_nothing(untouched: Repo, name: str) -> None:
    files, more = PROTECTED[name]
    patch = (patch_of(untouched, **files) if files else b"") + more
    found = gate(untouched, patch, protect=("tests/**",))
    assert (found.verdict, found.commit, found.seconds) == ("refused", "", 0.0)
    assert "protected" in found.reason


REFUSED: dict[str, tuple[bytes, str]] = {
    "into .git": (added(".git/hooks/post-commit"), "does not apply"),
    "into .GIT": (added("sub/.GIT/config"), "does not apply"),
    "a short name": (added("GIT~1/config"), "does not apply"),
    "unseen .git": (added(".g\u200cit/config"), "does not apply"),
    "upwards": (added("../outside"), "does not apply"),
    "absolute": (added("/etc/treering"), "does not apply"),
    "a last dot": (added("sub./new"), "not safe"),
    "a last blank": (added("new "), "not safe"),
    "a stream": (added("value.py:more"), "not safe"),
    "a short name of Windows": (added("CONFTE~1.PY"), "not safe"),
    "backslashes": (added("..\\outside"), "not safe"),
    "a line break": (added("a\nb"), "not safe"),
    "a submodule": (
        b"diff --git a/sub b/sub\nnew file mode 160000\nindex 0000000..%s\n--- /dev/null\n+++ b/sub\n@@ -0,0 +1 @@\n"
        b"+Subproject commit %s\n" % (b"1" * 40, b"1" * 40),
        "submodule",
    ),
    "a link out": (added("link", "/etc/passwd", "120000"), "out of the repository"),
    "a link up": (added("sub/link", "../../etc", "120000"), "out of the repository"),
    "a link by another": (added("sub/link", "other/../..", "120000"), "out of the repository"),
    "a link to .git": (added("hooks", ".git/hooks", "120000"), "out of the repository"),
    "what is not there": (b"--- a/no.py\n+++ b/no.py\n@@ -1 +1 @@\n-a\n+b\n", "does not apply"),
    "other lines": (b"--- a/value.py\n+++ b/value.py\n@@ -1 +1 @@\n-a\n+b\n", "does not apply"),
    "a binary file without its bytes": (
        (
            b"diff --git a/data.bin b/data.bin\nindex 1111111..2222222 100644\n"
            b"Binary files a/data.bin and b/data.bin differ\n"
        ),
        "does not apply",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_patch_that_must_not_or_cannot_be_applied_is_refused(untouched: Repo, name: str) -> None:
    patch, reason = REFUSED[name]
    found = gate(untouched, patch)
    assert found.verdict == "refused"
    assert reason in found.reason


def test_a_link_within_the_repository_and_a_binary_file_are_welcome(project: Repo) -> None:
    patch = patch_of(project, data__bin=b"\0\xff" * 500) + added("sub/link", "../value.py", "120000")
    found = gate(project, patch, "grep", "-q", "VALUE", "sub/link")
    assert found.verdict == "passed"
    assert project.git("cat-file", "-s", f"{found.commit}:data.bin") == "1000"


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"hello\n", "no patch"),
        (b"\xff\xfe\0\1" * 100, "no patch"),
        (b"--- a/value.py\n+++ b/value.py\n@@ -1 +1 @@\n-VALUE", "no patch"),
        (b"x" * (50 << 20), "52,428,800 bytes"),
    ],
    ids=["empty", "blank", "words", "bytes", "torn", "50 MB"],
)
def test_what_is_no_patch_is_an_error(untouched: Repo, patch: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        gate(untouched, patch)


def test_a_patch_that_unpacks_to_more_than_git_may_use_is_refused(
    untouched: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(100 << 20)
    name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest().encode()  # noqa: S324  git's own
    packed = zlib.compress(content)
    lines = [packed[at : at + 52] for at in range(0, len(packed), 52)]
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    coded = b"".join(letters[len(one) - 1 : len(one)] + base64.b85encode(one, pad=True) + b"\n" for one in lines)
    head = b"diff --git a/big b/big\nnew file mode 100644\nindex %s..%s\n" % (b"0" * 40, name)
    patch = head + b"GIT binary patch\nliteral %d\n%s\nliteral 0\nHcmV?d00001\n\n" % (len(content), coded)
    monkeypatch.setattr("treering.git.writing.PATCH_MEMORY", 32 << 20)
    with pytest.raises(UsageError, match="memory"):
        gate(untouched, patch)


def test_a_program_that_is_not_there_is_named(untouched: Repo) -> None:
    patch = patch_of(untouched, **GOOD)
    for command in ("no-such-program", "/no/such/program", "./no/such/program"):
        with pytest.raises(UsageError, match=r"no.such.program"):
            gate(untouched, patch, command)


def test_without_a_sandbox_it_refuses_unless_told(
    project: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patch = patch_of(project, **GOOD)
    where = opening.place(project.path)
    (tmp_path / "bin").mkdir()
    for name in ("git", "sh", "grep", "tar", "sleep", "cat", "setsid"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(NoSandbox, match="bwrap"):
        gating.gate(where, patch, ("true",))
    script = f"grep VALUE value.py; echo $HOME; (setsid {NAP} &); exit 0"
    found = gating.gate(where, patch, ("sh", "-c", script), sandboxed=False)
    assert (found.verdict, found.sandbox) == ("passed", "none")
    assert "VALUE = 2" in found.log
    monkeypatch.undo()
    assert not left_running(NAP)
    with pytest.raises(UsageError, match="settings"):
        gating.gate(where, patch, sandboxed=False)


@pytest.mark.parametrize(
    "script", [f"(setsid {NAP} &); {NAP}", f"for i in $(seq 99); do {NAP} & done; wait"], ids=["daemon", "many"]
)
def test_without_a_sandbox_nothing_is_left_running_either(project: Repo, script: str) -> None:
    limits: dict[str, object] = {"seconds": 1.0, "processes": 40}
    found = gate(project, patch_of(project, **GOOD), "sh", "-c", script, gate=limits, sandboxed=False)
    assert found.verdict in ("failed", "timed_out")
    assert not left_running(NAP)


def test_a_sandbox_that_cannot_be_made_is_an_error_that_says_why(
    untouched: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(
        '#!/bin/sh\ntest "$1" = --version && echo bubblewrap 0.9.0 && exit\necho bwrap: no namespaces >&2; exit 1\n'
    )
    fake.chmod(0o755)
    patch = patch_of(untouched, **GOOD)
    monkeypatch.setattr(os, "getuid", lambda: 1000)  # the tests of root are run by who may not go there
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(NoSandbox, match="bwrap: no namespaces"):
        gate(untouched, patch)
    fake.write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
    with pytest.raises(NoSandbox, match="too old"):
        gate(untouched, patch)


def test_files_that_do_not_fit_are_an_error_that_names_the_setting(project: Repo) -> None:
    project.commit("Large", large__bin=os.urandom(3 << 20))
    with pytest.raises(UsageError, match="do not fit into 1 MB") as caught:
        gate(project, patch_of(project, **GOOD), gate={"disk_mb": 1})
    assert "TREERING_GATE_DISK_MB" in caught.value.hint


def test_a_repository_without_commits_or_with_a_wrong_branch_is_named(
    make_repo: Callable[..., Repo], project: Repo
) -> None:
    with pytest.raises(RepositoryError, match="no commits"):
        gate(make_repo("empty"), added("a"))
    patch = added("a")
    for name in ("-x", "a..b", "HEAD", "a b", "refs/heads/", "x.lock", "@{-1}"):
        with pytest.raises(UsageError, match="cannot be a branch"):
            gate(project, patch, ref=name)
    project.git("branch", "taken")
    with pytest.raises(RepositoryError, match="taken/below"):
        gate(project, patch, ref="taken/below")
    project.git("symbolic-ref", "refs/heads/alias", "refs/heads/taken")
    with pytest.raises(RepositoryError, match="stands for"):
        gate(project, patch, ref="alias")
    assert not project.git("rev-parse", "--verify", "--quiet", "refs/tags/v1", check=False)


def test_bare_shallow_sparse_and_linked_repositories(project: Repo, tmp_path: Path) -> None:
    project.commit("More", sub_0_a__txt="a\n", other_0_b__txt="b\n")
    patch = patch_of(project, **GOOD)
    url = f"file://{project.path}"
    project.git("clone", "--quiet", "--bare", url, str(tmp_path / "bare.git"))
    project.git("clone", "--quiet", "--depth", "1", url, str(tmp_path / "shallow"))
    project.git("clone", "--quiet", "--sparse", url, str(tmp_path / "sparse"))
    project.git("worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "linked"))
    for name in ("bare.git", "shallow", "sparse", "linked"):
        where = opening.place(tmp_path / name)
        found = gating.gate(where, patch, ("sh", "-c", "cat sub/a.txt other/b.txt value.py"), ref="made-" + name[:4])
        assert (found.verdict, found.log) == ("passed", "a\nb\nVALUE = 2\n"), name
        told = subprocess.run(
            ["git", "-C", str(tmp_path / name), "rev-parse", found.ref], capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == found.commit


def test_a_partial_clone_without_the_files_is_told_so(project: Repo, tmp_path: Path) -> None:
    project.git("config", "uploadpack.allowFilter", "true")
    project.git("clone", "--quiet", "--bare", "--filter=blob:none", f"file://{project.path}", str(tmp_path / "partial"))
    where = opening.place(tmp_path / "partial")
    with pytest.raises(RepositoryError, match="not there"):
        gating.gate(where, added("new", "1"), ("true",))


def test_a_branch_that_another_git_holds_is_told_before_anything_runs(
    untouched: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treering.git.writing._LOCK", [])
    lock = untouched.path / ".git" / "refs" / "heads" / "new.lock"
    lock.touch()
    with pytest.raises(RepositoryError, match=r"refs/heads/new cannot be written: .*new\.lock"):
        gate(untouched, added("new", "1"), "sleep", "60", ref="new")
    lock.unlink()


def test_a_gate_that_nobody_waits_for_ends_and_commits_nothing(untouched: Repo) -> None:
    gone = threading.Event()
    threading.Timer(0.7, gone.set).start()
    patch = patch_of(untouched, **GOOD)
    started = time.monotonic()
    found = gate(untouched, patch, *NAP.split(), wanted=lambda: not gone.is_set())
    assert (found.verdict, found.commit) == ("failed", "")
    assert time.monotonic() - started < 10
    assert not left_running(NAP)


def test_a_killed_gate_leaves_nothing_running_and_the_next_one_sweeps(project: Repo, temporary: Path) -> None:
    patch = patch_of(project, **GOOD)
    before = state(project)
    command = [
        sys.executable,
        "-P",
        "-m",
        "treering",
        "gate",
        "--stdin",
        "--repo",
        str(project.path),
        "--",
        "sleep",
        "70",
    ]
    for pause in (0.5, 1.0, 1.8):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            process.stdin.write(patch)
            process.stdin.close()
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while (left := left_running(NAP)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    assert state(project) == before
    hour_ago = time.time() - 3600
    for folder in temporary.iterdir():
        os.utime(folder, (hour_ago, hour_ago))
    assert gate(project, patch).verdict == "passed"
    assert list(temporary.iterdir()) == []


def test_the_temporary_folder_of_a_gate_under_way_is_not_swept(project: Repo, temporary: Path) -> None:
    patch = patch_of(project, **GOOD)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gate, project, patch, "sleep", "2")
        while not list(temporary.iterdir()):
            time.sleep(0.01)
        time.sleep(0.5)
        for folder in temporary.iterdir():
            os.utime(folder, (0, 0))
        assert gate(project, added("other", "1")).verdict == "passed"
        assert first.result().verdict == "passed"


def run(repo: Repo, *arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["gate", "--repo", str(repo.path), *arguments], input=stdin)


def test_the_command_tells_its_verdict_by_its_exit_code(project: Repo, tmp_path: Path) -> None:
    patch, log = tmp_path / "a.patch", tmp_path / "log"
    patch.write_bytes(patch_of(project, **GOOD))
    told = ("--json", "--stdin", "--log", str(log), "--", "echo", "--json")
    passed = run(project, *told, stdin=patch.read_bytes())
    found = json.loads(passed.stdout)
    assert (passed.exit_code, found["verdict"], found["command"]) == (0, "passed", ["echo", "--json"])
    assert log.read_text() == found["log"] == "--json\n"
    failed = run(project, str(patch), "--", "sh", "-c", "echo why; exit 3")
    assert failed.exit_code == 10
    assert failed.stdout.startswith("failed: the tests ended with code 3\n")
    assert "why" in failed.stderr
    assert run(project, str(patch), "--protect", "value.py", "--", "true").exit_code == 11
    assert run(project, str(patch), "--seconds", "0.3", "--", "sleep", "9").exit_code == 12


def test_what_is_wrong_with_a_call_is_told(project: Repo, tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    patch.write_bytes(patch_of(project, **GOOD))
    for arguments, code, words in (
        ((), 2, "--stdin"),
        ((str(patch), "--stdin"), 2, "--stdin"),
        ((str(tmp_path / "none"), "--", "true"), 5, "none"),
        ((str(tmp_path), "--", "true"), 5, "Is a directory"),
        ((str(patch),), 2, "no test command"),
        ((str(patch), "--", ""), 2, "no test command"),
        ((str(patch), "--no-sandbox"), 2, "not taken from the settings"),
        ((str(patch), "--seconds", "soon", "--", "true"), 2, "--seconds"),
    ):
        done = run(project, *arguments)
        assert done.exit_code == code, (arguments, done.stderr)
        assert words in done.stderr
        assert done.stdout == ""


def test_the_command_of_the_settings_is_run_where_none_is_given(project: Repo) -> None:
    project.commit(
        "Settings", treering__toml='[gate]\ncommand = "sh -c \'echo of the settings\'"\nprotected = ["tests"]\n'
    )
    where = opening.place(project.path)
    assert gating.gate(where, patch_of(project, **GOOD)).log == "of the settings\n"
    assert gating.gate(where, added("tests/new")).verdict == "refused"
    unclosed = replace(where, settings=replace(where.settings, gate=replace(where.settings.gate, command="sh 'x")))
    with pytest.raises(UsageError, match="command"):
        gating.gate(unclosed, added("new"))


def test_the_command_of_the_file_opens_nothing_that_its_owner_did_not(
    project: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    (private / "bin").mkdir(parents=True)
    (private / "pyvenv.cfg").write_text("")
    (private / "bin" / "tool").write_text(f"#!/bin/sh\ncat {private}/secret\n")
    (private / "bin" / "tool").chmod(0o755)
    (private / "secret").write_text("hers")
    (project.path / "environment").symlink_to(private)
    (project.path / "tool").symlink_to(private / "bin" / "tool")
    project.write("script", f"#!{private}/bin/tool\n")
    (project.path / "script").chmod(0o755)
    for command in (f"{private}/bin/tool", "environment/bin/tool", "./tool", "./script", "../private/bin/tool"):
        project.write("treering.toml", f'[gate]\ncommand = "{command}"\n')
        with pytest.raises(UsageError, match=r"from the root|out of the work tree"):
            gating.gate(opening.place(project.path), patch_of(project, **GOOD))
    monkeypatch.setenv("TREERING_GATE_COMMAND", f"{private}/bin/tool")
    assert gating.gate(opening.place(project.path), patch_of(project, **GOOD)).log == "hers"


SETTINGS = '[gate]\ncommand = "sh tests/check.sh"\nprotected = ["tests"]\nseconds = 20\n'


@pytest.fixture
def served(project: Repo) -> Iterator[Served]:
    project.commit("Settings", treering__toml=SETTINGS)
    with serving({"project": opening.place(project.path)}, seconds=30.0) as server:
        yield server


def test_a_patch_can_be_posted_and_the_verdict_is_the_answer(served: Served, project: Repo) -> None:
    good, bad = patch_of(project, **GOOD).decode(), patch_of(project, value__py="X = 1\n").decode()
    passed = served.post("/v1/gate", {"repository": "project", "patch": good, "message": "Two", "ref": "agent/two"})
    assert passed.status_code == 200
    found = msgspec.convert(passed.json(), Verdict)
    assert (found.verdict, found.ref) == ("passed", "refs/heads/agent/two")
    assert project.git("log", "-1", "--format=%H %s", "agent/two") == f"{found.commit} Two"
    failed = served.post("/v1/gate?repository=project", {"patch": bad})
    assert (failed.status_code, failed.json()["verdict"]) == (200, "failed")
    refused = served.post("/v1/gate", {"patch": added("tests/new").decode()})
    assert (refused.status_code, refused.json()["verdict"]) == (200, "refused")


def test_what_is_posted_wrongly_is_refused_with_the_way_out(served: Served, project: Repo) -> None:
    patch = added("new").decode()
    for body, status, code in (
        ({}, 400, "invalid_request"),
        ({"patch": ""}, 400, "invalid_request"),
        ({"patch": "hello"}, 400, "invalid_request"),
        ({"patch": patch, "ref": "a..b"}, 400, "invalid_request"),
        ({"patch": patch, "repository": "other"}, 400, "invalid_request"),
        ({"patch": patch, "command": "rm -rf /"}, 400, "invalid_request"),
        ({"patch": "x" * (2 << 20)}, 413, "too_large"),
    ):
        told = served.post("/v1/gate", body)
        assert (told.status_code, told.json()["error"]["code"]) == (status, code), body
    assert served.get("/v1/gate").status_code == 405
    assert served.post("/v1/gate?repository=project", {"patch": patch, "repository": "other"}).status_code == 400
    assert project.git("branch", "--format=%(refname:short)") == "main"


def test_a_server_without_a_command_or_a_sandbox_says_what_to_do(
    project: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {"patch": added("new").decode()}
    with serving({"project": opening.place(project.path)}) as server:
        told = server.post("/v1/gate", asked)
        assert (told.status_code, told.json()["error"]["code"]) == (409, "no_command")
        assert "TREERING_GATE_COMMAND" in told.json()["error"]["hint"]
    monkeypatch.setenv("TREERING_GATE_COMMAND", "true")
    (tmp_path / "bin").mkdir()
    for name in ("git", "true"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with serving({"project": opening.place(project.path)}) as server:
        told = server.post("/v1/gate", asked)
        assert (told.status_code, told.json()["error"]["code"]) == (409, "no_sandbox")


def test_who_leaves_ends_the_tests_and_the_server_s_own_time_does_too(
    project: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREERING_GATE_COMMAND", NAP)
    with serving({"project": opening.place(project.path)}, seconds=4.0) as server:
        told = server.post("/v1/gate", {"patch": added("new").decode()})
        assert (told.status_code, told.json()["verdict"]) == (200, "timed_out")
        with pytest.raises(httpx.ReadTimeout):
            server.post("/v1/gate", {"patch": added("new").decode()}, timeout=1.0)
        until = time.monotonic() + 2.5
        while left_running(NAP) and time.monotonic() < until:
            time.sleep(0.05)
        assert not left_running(NAP)
    assert project.git("branch", "--format=%(refname:short)") == "main"


def test_the_gate_is_described(served: Served) -> None:
    told = served.get("/openapi.json").json()
    assert "/v1/gate" in told["paths"]
    assert told["components"]["schemas"]["GateAsked"]["required"] == ["patch"]
    assert "verdict" in told["components"]["schemas"]["Verdict"]["properties"]


def test_a_temporary_folder_without_room_is_told_as_that(project: Repo, temporary: Path) -> None:
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", temporary], check=False).returncode
    ):
        pytest.skip("no small file system can be mounted here: it was not filled")
    try:
        content = "".join(f"{hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(20_000))
        with pytest.raises(DiskFull, match="the disk is full"):
            gate(project, added("large", content.strip()))
    finally:
        subprocess.run(["umount", temporary], check=True)
    assert project.git("status", "--porcelain") == ""
