"""Laws of the gate: whatever patch comes, what is committed was tested, and what is protected stays as it was."""

import hashlib
import shutil

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from repositories import Repo
from treering import gating, opening
from treering.errors import UsageError

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: no gate is tried"),
]

PATHS = (
    "a.py",
    "b c.py",
    "src/deep/x.txt",
    "tests/t.py",
    "Tests/u.py",
    "lib/tests/v.py",
    "\u00e4/\u4e2d.md",
    "-n",
    "q\"'.txt",
)
PROTECTED = ("tests/", "*.md")
CONTENTS = (
    b"",
    b"one\n",
    b"one\ntwo\nthree\nfour\n",
    b"no end",
    b"\0\1\2\xff",
    "\u00e4\r\nend\n".encode(),
    b"x\n" * 300,
)
EDITS = st.lists(
    st.tuples(st.sampled_from(PATHS), st.one_of(st.none(), st.sampled_from(CONTENTS)), st.booleans()),
    min_size=1, max_size=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo(tmp_path_factory.mktemp("laws") / "project")
    for number, path in enumerate(PATHS[:-2]):
        repo.write(path, CONTENTS[number % len(CONTENTS)])
    repo.commit("Start")
    repo.git("clone", "--quiet", str(repo.path), str(repo.path.parent / "editor"))
    return repo


def patch_of(repo: Repo, edits: list[tuple[str, bytes | None, bool]], *, renames: bool) -> bytes:
    editor = repo.path.parent / "editor"
    at = ["-C", str(editor)]
    repo.git(*at, "reset", "--quiet", "--hard", "origin/main")
    for path, content, executable in edits:
        place = editor / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(content)
            place.chmod(0o755 if executable else 0o644)
    repo.git(*at, "add", "--all")
    told = repo.git(*at, "diff", "--cached", "--binary", "--find-renames" if renames else "--no-renames")
    return told.encode() + b"\n\n"


def listed(repo: Repo, tree: str) -> dict[str, str]:
    """The files of a tree: their modes and blobs."""
    entries = repo.git("ls-tree", "-r", "-z", tree).split("\0")
    return {path: meta for meta, _, path in (entry.partition("\t") for entry in entries) if path}


def protected(path: str) -> bool:
    return any(part.lower() == "tests" for part in path.split("/")[:-1]) or path.endswith(".md")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=EDITS, renames=st.booleans(), damage=st.one_of(st.none(), st.integers(0, 10_000)))
def test_what_is_committed_was_tested_and_what_is_protected_stays(
    project: Repo, edits: list[tuple[str, bytes | None, bool]], renames: bool, damage: int | None
) -> None:
    patch = patch_of(project, edits, renames=renames)
    if damage is not None:
        lines = patch.splitlines(keepends=True)
        del lines[damage % len(lines)]
        patch = b"".join(lines)
    editor = ["-C", str(project.path.parent / "editor")]
    meant = [path for path in project.git(*editor, "diff", "--cached", "--name-only", "-z").split("\0") if path]
    refs = project.git("for-each-ref")
    tell = "find . -type f -print0 | xargs -0r sha256sum -z | tr '\\0' '\\n'; rm -rf a.py tests; echo x > new"
    try:
        found = gating.gate(opening.place(project.path), patch, ("sh", "-c", tell), protect=PROTECTED)
    except UsageError:
        event("no patch")
        assert project.git("for-each-ref") == refs
        assert damage is not None or not meant
        return
    event(found.verdict)
    if damage is None:
        assert found.verdict == ("refused" if any(map(protected, meant)) else "passed"), found
    before = listed(project, "main")
    if found.verdict != "passed":
        assert found.verdict == "refused"
        assert project.git("for-each-ref") == refs
        return
    after = listed(project, found.commit)
    assert project.git("rev-parse", f"{found.commit}^{{tree}}", f"{found.commit}^").split() == [found.tree, found.base]
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed == set(found.files) != set()
    assert not any(protected(path) for path in changed)
    tested = {path: digest for digest, _, path in (line.partition("  ./") for line in found.log.splitlines())}
    assert set(tested) == set(after)
    if damage is None:
        assert found.tree == project.git(*editor, "write-tree")
        for path, digest in tested.items():
            assert hashlib.sha256((project.path.parent / "editor" / path).read_bytes()).hexdigest() == digest
    project.git("update-ref", "-d", found.ref)
