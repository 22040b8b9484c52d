"""Each operation is defined once, and every face offers it as it is: the command line, MCP, and the docs of both."""

import re
from pathlib import Path

import click
import msgspec
import pytest

from treering.cli.main import main
from treering.offered import OFFERS
from treering.serve.mcp import server

DOCS = {path.stem: path.read_text("utf-8") for path in (Path(__file__).parents[2] / "docs").glob("*.md")}


@pytest.mark.parametrize("name", sorted(OFFERS))
def test_a_command_takes_what_may_be_asked(name: str) -> None:
    command = main.commands[OFFERS[name].command]
    taken = {one.name for one in command.params if one.name}
    assert set(OFFERS[name].asked.__struct_fields__) <= taken | {"filters"}, f"{name}: {taken}"


@pytest.mark.parametrize("name", sorted(OFFERS))
def test_what_is_not_given_is_the_same_everywhere(name: str) -> None:
    command, offer = main.commands[OFFERS[name].command], OFFERS[name]
    defaults = {one.name: one.get_default(click.Context(command)) for one in command.params}
    for field in msgspec.structs.fields(offer.asked):
        if not field.required and isinstance(defaults[field.name], str | int):  # else a setting decides it
            assert defaults[field.name] == field.default, field.name


@pytest.mark.parametrize("name", sorted(OFFERS))
def test_the_docs_tell_of_its_command_its_path_and_its_tool(name: str) -> None:
    offer = OFFERS[name]
    assert f"`/v1/{name}`" in DOCS["serving"]
    assert re.search(rf"^## .*`treering {offer.command}\b", DOCS["commands"], re.MULTILINE)
    assert f"`{offer.tool}`" in DOCS["mcp"] if offer.tool else True


def test_what_is_asked_is_described() -> None:
    for name, offer in OFFERS.items():
        for field, schema in msgspec.json.schema(offer.asked)["$defs"][offer.asked.__name__]["properties"].items():
            assert "description" in schema, f"{name}: {field}"


def test_each_tool_is_one_of_mcp() -> None:
    async def answer(*_: object) -> object:
        raise AssertionError("nobody asks")

    tools = {tool.name: tool for tool in server(answer, ["one"])._tool_manager.list_tools()}
    named = {offer.tool: offer for offer in OFFERS.values() if offer.tool}
    assert set(tools) == set(named)
    for name, tool in tools.items():
        taken = set(tool.parameters["properties"]) | named[name].settled.keys()
        assert taken == set(named[name].asked.__struct_fields__)
