"""What is there is documented: every command, option, setting, error, dependency and file has its entry."""

import re
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

from treering import errors
from treering.cli import seed
from treering.cli.main import main
from treering.config import SECTIONS
from treering.offered import OFFERS

ROOT = Path(__file__).parents[2]
DOCS = {path.stem: path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text("utf-8")
COMMON = {"--repo", "--store", "--json", "--verbose", "--help"}


def options(command: click.Command) -> set[str]:
    return {name for one in command.params if isinstance(one, click.Option) for name in one.opts + one.secondary_opts}


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_and_option_has_an_entry(name: str) -> None:
    match = re.search(rf"^## `treering {name}\b.*?(?=^#)", DOCS["commands"], re.DOTALL | re.MULTILINE)
    assert match, f"docs/commands.md does not tell of `treering {name}`"
    for option in options(main.commands[name]) - COMMON:
        assert option in match[0].replace("--gpu/--no-gpu", "--gpu --no-gpu"), option


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("git_scraper.py", seed.scrape),
        ("git_tokenizer.py", seed.tokenize),
        ("embedding_generator.py", seed.embed),
        ("model_trainer.py", seed.train),
    ],
)
def test_every_flag_of_the_seeds_scripts_has_an_entry(script: str, command: click.Command) -> None:
    row = next(line for line in DOCS["commands"].splitlines() if script in line)
    for option in options(command):
        assert f"`{option}" in row, option


def test_every_path_of_an_offer_is_told() -> None:
    for name in OFFERS:
        assert f"`/v1/{name}`" in DOCS["serving"], name


def test_every_setting_has_a_row_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \|", DOCS["configuration"], re.MULTILINE))
    known = {f"{section}.{one.name}": one.default for section, kind in SECTIONS.items() for one in fields(kind)}
    assert set(rows) == set(known)
    for name, default in known.items():
        if name != "scrape.workers":  # it depends on the machine
            shown = rows[name].strip().strip("`")
            default = list(default) if isinstance(default, tuple) else "empty" if default == "" else default
            wanted = f"{default:g}" if isinstance(default, float) else str(default)
            assert shown.lower() == wanted.lower(), name


def test_every_error_has_a_row_with_its_code() -> None:
    found = re.findall(r"^\| (\d+) \| `(\w+)`", DOCS["errors"], re.MULTILINE)
    rows = {name: int(code) for code, name in found}
    known = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.TreeringError)
    }
    assert rows == known


def test_every_dependency_has_a_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for requirement in wanted:
        name = re.split(r"[\[<>=]", requirement)[0]
        if name != "treering":
            assert re.search(rf"^\|.*\b{name}\b", DOCS["dependencies"], re.MULTILINE), name


def test_every_file_of_the_package_has_a_line_in_the_readme() -> None:
    for path in sorted((ROOT / "src" / "treering").rglob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            assert re.search(rf"\b{path.name} ", README), path.name


def test_the_docs_name_no_machine() -> None:
    for text in (README, *DOCS.values()):
        assert not re.search(r"(?<![\w.])/(root|work|home/\w+|tmp)/", text)


def test_every_link_of_the_docs_leads_somewhere_and_nothing_is_left_to_fill_in() -> None:
    for folder, text in ((ROOT, README), *((ROOT / "docs", text) for text in DOCS.values())):
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / target).is_file(), target
        assert not re.search(r"@[A-Z]+@", text)


def test_nothing_that_is_ignored_is_kept() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no work tree of git: what it keeps is not known")
    told = ["git", "-C", str(ROOT), "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(told, capture_output=True, text=True, check=True).stdout == ""


def test_nothing_is_installed_from_a_registry_by_our_name() -> None:
    for name, text in DOCS.items() | {("README", README)}:
        assert not re.search(r"pip install[^\n#]*treering", text), name
