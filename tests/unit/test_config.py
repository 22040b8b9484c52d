"""Settings: which source wins, and what a wrong one is told."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from treering.config import NOT_OF_THE_FILE, SECTIONS, Settings, load
from treering.errors import UsageError


def written(folder: Path, text: str) -> Path:
    (folder / "treering.toml").write_text(text, "utf-8")
    return folder


def refused(folder: Path | None, environment: dict[str, str], flags: dict[str, dict[str, object]]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(folder, environment, flags)
    return caught.value


def test_every_setting_has_a_default() -> None:
    assert load(None, {}) == Settings()
    assert all(SECTIONS[section]() == getattr(Settings(), section) for section in SECTIONS)


def test_no_setting_of_the_server_is_taken_from_a_repository() -> None:
    assert {key for section, key in NOT_OF_THE_FILE if section == "serve"} == {
        one.name for one in fields(SECTIONS["serve"])
    }


def test_a_folder_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, {}) == Settings()


def test_the_environment_beats_the_file_and_flags_beat_both(tmp_path: Path) -> None:
    folder = written(tmp_path, "[search]\nlimit = 20\n[train]\nminutes = 1.5\nepochs = 4\n")
    environment = {"TREERING_TRAIN_MINUTES": "2", "TREERING_TRAIN_EPOCHS": "5"}
    chosen = load(folder, environment, {"train": {"epochs": 6}})
    assert (chosen.search.limit, chosen.train.minutes, chosen.train.epochs) == (20, 2.0, 6)
    assert chosen.train.batch_size == Settings().train.batch_size


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    assert load(None, {"TREERING_SEARCH_LIMIT": "3"}, {"search": {"limit": None}}).search.limit == 3


def test_every_setting_can_be_given_in_the_environment() -> None:
    environment = {
        f"TREERING_{section}_{setting.name}".upper(): ",".join(default) if isinstance(default, tuple) else str(default)
        for section, kind in SECTIONS.items()
        for setting in fields(kind)
        for default in [getattr(kind(), setting.name)]
    }
    assert load(None, environment) == Settings()


def test_every_setting_can_be_given_in_the_file(tmp_path: Path) -> None:
    def toml(value: object) -> str:
        return (
            str(value).lower() if isinstance(value, bool) else repr(list(value) if isinstance(value, tuple) else value)
        )

    lines: list[str] = []
    for section, kind in SECTIONS.items():
        given = [one.name for one in fields(kind) if (section, one.name) not in NOT_OF_THE_FILE]
        lines += (f"[{section}]", *(f"{name} = {toml(getattr(kind(), name))}" for name in given))
    assert load(written(tmp_path, "\n".join(lines)), {}) == Settings()


def test_where_the_store_lies_is_no_setting(tmp_path: Path) -> None:
    assert load(None, {"TREERING_STORE": str(tmp_path)}) == Settings()
    assert "[store]" in refused(written(tmp_path, '[store]\npath = "/etc"\n'), {}, {}).message


def test_other_programs_variables_are_not_ours() -> None:
    assert load(None, {"HOME": "/", "TREE": "1", "treering_train_minutes": "3", "MY_TREERING_X": "1"}) == Settings()


def test_an_unknown_section_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "[trian]\nminutes = 1\n"), {}, {})
    assert "[trian]" in error.message
    assert str(tmp_path / "treering.toml") in error.message
    assert "[train]" in error.hint


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "[train]\nminuts = 1\n"), {}, {})
    assert "`minuts`" in error.message
    assert "[train]" in error.message
    assert "`minutes`" in error.hint


def test_an_unknown_variable_is_named_with_the_nearest_one() -> None:
    error = refused(None, {"TREERING_TRIAN_MINUTES": "1"}, {})
    assert "TREERING_TRIAN_MINUTES" in error.message
    assert "TREERING_TRAIN" in error.hint


def test_a_variable_with_an_unknown_key_gets_the_nearest_key() -> None:
    error = refused(None, {"TREERING_SEARCH_LIMITS": "1"}, {})
    assert "environment" in error.message
    assert "`limit`" in error.hint


def test_a_name_like_none_we_know_gets_the_list() -> None:
    error = refused(None, {}, {"search": {"zzzzzz": 1}})
    assert "`zzzzzz`" in error.message
    assert "`dense_weight`" in error.hint


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "train = 3\n"), {}, {})
    assert "`train` must be a table" in error.message
    assert "[train]" in error.hint


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "minutes", "'soon'"),
        ("train", "minutes", "-1"),
        ("train", "minutes", "nan"),
        ("train", "epochs", "0"),
        ("train", "epochs", "1.5"),
        ("train", "gpu", "'perhaps'"),
        ("train", "method", "'magic'"),
        ("train", "model", "7"),
        ("search", "limit", "1001"),
        ("search", "limit", "true"),
        ("search", "limit", "[]"),
        ("tokens", "strategy", "'prose'"),
        ("tokens", "sequence_length", "4"),
        ("scrape", "workers", "0"),
    ],
)
def test_a_wrong_value_is_told_by_file_section_and_key(tmp_path: Path, section: str, key: str, value: str) -> None:
    error = refused(written(tmp_path, f"[{section}]\n{key} = {value}\n"), {}, {})
    assert str(tmp_path / "treering.toml") in error.message
    assert f"`{key}` in [{section}]" in error.message


@pytest.mark.parametrize("value", ["", "many", "0", "-3", "1e9"])
def test_a_wrong_value_in_the_environment_is_told_by_its_key(value: str) -> None:
    error = refused(None, {"TREERING_SEARCH_LIMIT": value}, {})
    assert "environment" in error.message
    assert "`limit` in [search]" in error.message


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_switch_in_the_environment_is_a_word_or_a_digit(text: str, meant: Any) -> None:
    assert load(None, {"TREERING_TRAIN_GPU": text}).train.gpu is meant


@pytest.mark.parametrize("content", [b"[train\n", b"[train]\nminutes =\n", b"# \xff\xfe\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "treering.toml").write_bytes(content)
    error = refused(tmp_path, {}, {})
    assert str(tmp_path / "treering.toml") in error.message
    assert "docs/configuration.md" in error.hint
