"""The command that tests a patch before it is committed."""

import sys
from pathlib import Path
from typing import Any

import click

from treering.cli.options import PATH, OneLine, common, emit
from treering.errors import DataError, UsageError
from treering.report import Reporter, one_line, printable

SHOWN = 40
"""Lines of a log that are shown, the last ones; ``--json`` and ``--log`` give all that is kept."""
_TESTS = "treering.tests"


class _BeforeTests(OneLine):
    """What stands after the first `--` is the test command, word by word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_TESTS] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- TEST COMMAND"]


@click.command(cls=_BeforeTests)
@click.argument("patch", type=PATH, required=False)
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the patch from standard input.")
@click.option("--ref", default="", help="The branch to commit to [default: a new one, treering/gate-...].")
@click.option("--message", "-m", default="", help="The commit's message [default: what is changed].")
@click.option("--protect", multiple=True, help="What the patch may not touch, beside the settings'; may hold *.")
@click.option("--readable", multiple=True, help="What more of the machine tests may read; may be given several times.")
@click.option("--seconds", type=click.FloatRange(0.1, 86_400), help="How long the tests may take [default: 600].")
@click.option("--no-sandbox", is_flag=True, help="Run the tests as you yourself: they can do all that you can.")
@click.option("--log", type=PATH, help="Write what the tests said to a file.")
@common
@click.pass_context
def gate(
    ctx: click.Context, repo: Path, store: Path | None, as_json: bool, verbose: bool, patch: Path | None,
    from_stdin: bool, ref: str, message: str, protect: tuple[str, ...], readable: tuple[str, ...],
    seconds: float | None, no_sandbox: bool, log: Path | None,
) -> None:  # fmt: skip
    """Test a patch in a sandbox, and commit it if the tests pass."""
    from treering import gating, opening
    from treering.files import replacing

    report = Reporter.to_stderr(verbose=verbose)
    if (patch is None) != from_stdin:
        raise UsageError("give a patch as a file, or --stdin", "git diff | treering gate --stdin -- make test")
    where = opening.place(repo, store)
    content = _read(patch, where.settings.gate.patch_bytes)
    found = gating.gate(
        where, content, ctx.meta[_TESTS], ref=ref, message=message, protect=protect, readable=readable,
        seconds=seconds or 0.0, sandboxed=not no_sandbox,
    )  # fmt: skip
    if log:
        with replacing(log) as file:
            file.write(found.log.encode("utf-8", "replace"))
    if as_json:
        emit(found)
    else:
        _tell(found, report, shown=log is None)
    sys.stdout.flush()
    ctx.exit(gating.CODES[found.verdict])


def _read(patch: Path | None, most: int) -> bytes:
    """The patch, and a byte more where it is too large."""
    if patch is None:
        return sys.stdin.buffer.read(most + 1)
    try:
        with patch.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise DataError(f"cannot read {patch}: {error.strerror}", "check the path") from error


def _tell(found: Any, report: Reporter, *, shown: bool) -> None:
    if shown and found.verdict != "passed" and found.log:
        click.echo(printable("\n".join(found.log.splitlines()[-SHOWN:])), err=True)
    click.echo(one_line(f"{found.verdict.replace('_', ' ')}: {found.reason}"))
    if found.tree:
        used = f"{found.seconds:.1f} s, {found.memory / 1e6:,.0f} MB of memory"
        click.echo(one_line(f"tests: {' '.join(found.command)} ({used}; sandbox: {found.sandbox})"))
    if found.commit:
        click.echo(one_line(f"commit {found.commit} on {found.ref}"))
        click.echo(one_line(f"see it: {found.see}"))
    report.detail(f"base: {found.base}, tree: {found.tree}, files: {', '.join(found.files)}")
