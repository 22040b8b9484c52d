"""Which kind of file a path names: case by case, and laws of all paths."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treering.text import kinds
from treering.text.kinds import KINDS, NOISE, Kind, kind_of

ATTRIBUTES = st.dictionaries(
    st.sampled_from(["linguist-generated", "linguist-vendored", "linguist-documentation"]), st.booleans()
)
WORDS = ["vendor", "docs", "data", "log", "logs", "tests", "build", "README", "a.min.js", ".", "..", "", ".env", "x.md"]
PATHS = st.text() | st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=8).map("/".join)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("package-lock.json", "lock"),
        ("web/Cargo.lock", "lock"),
        ("go.sum", "lock"),
        ("vendor/package-lock.json", "lock"),
        ("vendor/lib/a.py", "vendored"),
        ("web/node_modules/left-pad/index.js", "vendored"),
        ("Third_Party/zlib/inflate.c", "vendored"),
        ("vendor.py", "source"),
        ("vendor", "source"),
        ("dist/app.js", "generated"),
        ("web/app.min.js", "generated"),
        ("web/app.css.map", "generated"),
        ("api/v1/api_pb2.py", "generated"),
        ("api/v1/api_pb2_grpc.pyi", "generated"),
        ("api/v1/api.pb.go", "generated"),
        ("pkg/zz_generated.deepcopy.go", "generated"),
        ("ui/__snapshots__/Button.test.js.snap", "generated"),
        ("treering.egg-info/PKG-INFO", "generated"),
        ("logo.png", "binary"),
        ("LOGO.PNG", "binary"),
        ("docs/paper.pdf", "binary"),
        ("archive.tar.gz", "binary"),
        ("server.log", "log"),
        ("server.log.3", "log"),
        ("npm-debug.log", "log"),
        ("run/logs/today.txt", "log"),
        ("logs/deep/er.txt", "docs"),
        ("tests/unit/test_kinds.py", "test"),
        ("tests/README.md", "test"),
        ("market_test.go", "test"),
        ("market.test.ts", "test"),
        ("market.spec.ts", "test"),
        ("spec/market_spec.rb", "test"),
        ("conftest.py", "test"),
        ("UserTest.java", "test"),
        ("UserTests.cs", "test"),
        ("contest.py", "source"),
        ("latest.py", "source"),
        ("Makefile", "config"),
        ("docker/Dockerfile", "config"),
        ("requirements-dev.txt", "config"),
        ("pyproject.toml", "config"),
        (".gitignore", "config"),
        (".env", "config"),
        (".github/workflows/ci.yml", "config"),
        ("tsconfig.json", "config"),
        ("table.csv", "data"),
        ("assets/icon.svg", "data"),
        ("notebook.ipynb", "data"),
        ("data/deep/er.json", "data"),
        ("database/schema.json", "config"),
        ("locale/de.po", "data"),
        ("README", "docs"),
        ("README.md", "docs"),
        ("LICENSE", "docs"),
        ("CHANGELOG.rst", "docs"),
        ("docs/guide", "docs"),
        ("man/git.1", "docs"),
        ("src/market.py", "source"),
        ("src/market.d.ts", "source"),
        ("docs/conf.py", "source"),
        ("readmeter.py", "source"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}/men\N{LATIN SMALL LETTER U WITH DIAERESIS}.rs", "source"),
        ("new\nline.md", "docs"),
        ("", "source"),
    ],
)
def test_the_kind_of_a_path_is_that_of_the_first_rule_that_fits(path: str, kind: Kind) -> None:
    assert kind_of(path) == kind


@pytest.mark.parametrize(
    "path", ["src/treering/git/history.py", "security.go", "news.rb", "todo.js", "changes.c", "authors.ts", "notice.rs"]
)
def test_a_program_named_like_a_document_is_source(path: str) -> None:
    assert kind_of(path) == "source"


@pytest.mark.parametrize("path", ["Contest.java", "Latest.kt", "Attest.swift", "Greatest.scala", "fastest.cs"])
def test_a_word_that_ends_like_test_is_no_test(path: str) -> None:
    assert kind_of(path) == "source"


@pytest.mark.parametrize(
    ("path", "attributes", "kind"),
    [
        ("src/market.py", {"linguist-generated": True}, "generated"),
        ("src/market.py", {"linguist-vendored": True}, "vendored"),
        ("src/market.py", {"linguist-documentation": True}, "docs"),
        ("go.sum", {"linguist-generated": True}, "generated"),
        ("src/market.py", {"linguist-generated": True, "linguist-vendored": True}, "generated"),
        ("dist/app.js", {"linguist-generated": False}, "source"),
        ("vendor/a.py", {"linguist-vendored": False}, "source"),
        ("README.md", {"linguist-documentation": False}, "source"),
        ("vendor/dist/app.js", {"linguist-vendored": False}, "generated"),
        ("vendor/logo.png", {"linguist-vendored": False}, "binary"),
        ("dist/README.md", {"linguist-generated": False}, "docs"),
        ("dist/app.js", {"linguist-vendored": False}, "generated"),
        ("go.sum", {"linguist-generated": False}, "lock"),
        ("src/market.py", {"linguist-generated": False, "linguist-vendored": False}, "source"),
        ("src/market.py", {}, "source"),
    ],
)
def test_what_a_repository_says_of_its_files_comes_before_the_rules(
    path: str, attributes: dict[str, bool], kind: Kind
) -> None:
    assert kind_of(path, attributes) == kind


def test_every_rule_has_a_kind_that_there_is_and_only_words_that_are_used() -> None:
    rules = tomllib.loads(Path(kinds.__file__).with_suffix(".toml").read_text("utf-8"))["rule"]
    assert {rule["kind"] for rule in rules} == set(KINDS) - {"source"}
    for rule in rules:
        assert set(rule) <= {"kind", "names", "folders", "suffixes", "patterns"}
        for words in (rule.get("names", ""), rule.get("folders", ""), rule.get("suffixes", "")):
            assert words == words.lower()
            assert len(words.split()) == len(set(words.split()))
            assert "/" not in words
        for pattern in rule.get("patterns", []):
            assert pattern.replace("(?-i:Tests?)", "") == pattern.replace("(?-i:Tests?)", "").lower()
            assert not pattern.startswith("(?i")
    assert set(KINDS) > NOISE


@given(PATHS, ATTRIBUTES)
def test_every_path_has_a_kind(path: str, attributes: dict[str, bool]) -> None:
    assert kind_of(path) in KINDS
    kind = kind_of(path, attributes)
    assert kind in KINDS
    if attributes.get("linguist-generated"):
        assert kind == "generated"
    elif attributes.get("linguist-vendored"):
        assert kind == "vendored"
    elif attributes.get("linguist-generated") is False:
        assert kind != "generated"


@given(PATHS)
def test_the_case_of_a_path_does_not_matter(path: str) -> None:
    if path.upper().lower() == path.lower():  # not so for every letter
        assert kind_of(path) == kind_of(path.upper())


@pytest.mark.parametrize("part", ["doc/", "data/", "logs/", "a.", "(", "vendor", "_test", " ", "\n"])
def test_a_long_hostile_path_has_a_kind(part: str) -> None:
    assert kind_of(part * 2000 + "!") in KINDS
