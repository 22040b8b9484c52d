"""The commands for clients of the Model Context Protocol: the server on stdio, and its entry in a client's file."""

import sys
from pathlib import Path

import click

from treering.cli.options import PATH, REPOS, Commands, OneLine, emit, guarded
from treering.errors import UsageError, needs
from treering.report import Reporter, one_line

_STORE = click.option("--store", type=PATH, help="The store's folder [default: .treering there; $TREERING_STORE].")
_VERBOSE = click.option("--verbose", is_flag=True, help="Say more on stderr.")


def _serve(repos: tuple[Path, ...], store: Path | None, *, verbose: bool) -> None:
    from treering import opening

    places = opening.places(repos, store)
    with needs("serve"):
        import anyio

        from treering.serve.house import House
        from treering.serve.mcp import server
    Reporter.to_stderr(verbose=verbose).say(f"serving {', '.join(places)} on stdin and stdout; end of input ends it")
    with House(places, threads=1) as house:
        anyio.run(server(house.answer_discreetly, house.names).run_stdio_async)


@click.group(cls=Commands, invoke_without_command=True)
@REPOS
@_STORE
@_VERBOSE
@click.pass_context
def mcp(context: click.Context, repos: tuple[Path, ...], store: Path | None, verbose: bool) -> None:
    """Serve the index to Claude Code and other clients of MCP, over stdin and stdout."""
    if context.invoked_subcommand is None:
        guarded(_serve)(repos, store, verbose=verbose)
    elif repos or store or verbose:
        raise click.UsageError(f"options come behind `{context.invoked_subcommand}`")


@mcp.command(cls=OneLine)
@click.option(
    "--client", type=click.Choice(["claude-code", "claude-desktop", "cursor"]), default="claude-code", show_default=True
)
@click.option("--print", "only_print", is_flag=True, help="Print what the file would be, and write nothing.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@REPOS
@_STORE
@guarded
def install(
    client: str, only_print: bool, yes: bool, as_json: bool, repos: tuple[Path, ...], store: Path | None
) -> None:
    """Tell a client of this server: show what changes in its file, ask, write."""
    from treering import opening
    from treering.serve import clients

    places = opening.places(repos, store)
    change = clients.change(client, list(places.values()), clients.program(), store)
    if only_print:
        click.echo(change.after, nl=False)
        return
    if change.made:
        if not as_json:
            click.echo("".join(f"{one_line(line)}\n" for line in change.lines()), nl=False)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"{change.path} would be changed and nobody can be asked", "give --yes, or --print")
            if not click.confirm(one_line(f"Write {change.path}?"), err=True):
                raise UsageError(f"{change.path} was left as it is", "--print prints what it would be")
        clients.remember(change, next(iter(places.values())).folder)
        change.write()
    if as_json:
        emit({"file": str(change.path), "changed": change.made, "server": change.name})
        return
    click.echo(one_line(f"{change.path} {'names' if change.made else 'named it already:'} the server {change.name}"))
