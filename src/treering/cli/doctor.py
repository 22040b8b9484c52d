"""The command that looks at the machine: what is wrong with it, and what it can train before anything starts."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from treering.cli.learn import BATCH_SIZE, GPU, METHOD, MODEL, SEQUENCE_LENGTH
from treering.cli.options import OneLine, common, emit, settings_of
from treering.errors import ModelError, TreeringError, Unsound
from treering.report import Reporter, one_line


@click.command(cls=OneLine)
@click.option("--train", "training", is_flag=True, help="Plan the training too: what fits, and why.")
@MODEL
@METHOD
@BATCH_SIZE
@SEQUENCE_LENGTH
@GPU
@common
def doctor(repo: Path, store: Path | None, as_json: bool, verbose: bool, training: bool, **flags: Any) -> None:
    """What is wrong with this machine, each with the way out; with --train, whether the training fits it."""
    if not training:
        _examine(repo, store, flags, as_json=as_json)
        return
    from treering import learning, opening

    where = opening.place(repo, store, settings_of(flags))
    found = learning.prospect(where, Reporter.to_stderr(verbose=verbose))
    command = _command(found, {"repo": None if str(repo) == "." else repo, "store": store, **flags})
    if as_json:
        emit({"machine": found.machine, "base": found.base, "shape": found.shape,
              "sequence_length": found.sequence_length, "plan": found.plan, "command": command})  # fmt: skip
    else:
        _tell(found, command)
    if not found.plan.fits:
        raise ModelError(f"this training does not fit the machine: {found.plan.reasons[-1]}", "docs/training.md")


def _examine(repo: Path, store: Path | None, flags: dict[str, Any], *, as_json: bool) -> None:
    from treering import caring, hooking, learning, opening

    machine = None
    with suppress(TreeringError):  # without the extra `train`, or a repository: the checks say so
        machine = learning.profile(opening.place(repo, store, settings_of(flags)))
    found = caring.examine(repo, store, settings_of(flags), [hooking.examined])
    if as_json:
        import msgspec

        told = msgspec.to_builtins(machine) if machine else {}
        emit(told | {"checks": found})
    else:
        if machine:
            click.echo(_machine(machine))
        for one in found:
            click.echo(one_line(f"{one.severity:<9}{one.name:<28}{one.found}"))
            if one.way_out:
                click.echo(one_line(f"{'':<37}-> {one.way_out}"))
    if wrong := [one for one in found if one.severity == "error"]:
        raise Unsound(f"{len(wrong)} wrong: {wrong[0].name}: {wrong[0].found}", wrong[0].way_out)


def _tell(found: Any, command: str) -> None:
    plan, shape = found.plan, found.shape
    click.echo(_machine(found.machine))
    click.echo(
        one_line(
            f"base     {found.base}: {shape.parameters / 1e6:,.1f} million parameters in {shape.layers} layers of"
            f" {shape.hidden}, vocabulary {shape.vocab:,}"
        )
    )
    devices = f" x {plan.devices} devices" if plan.devices > 1 else ""
    click.echo(
        f"plan     {plan.method}, {plan.precision}, {plan.batch_size} x {plan.accumulate}{devices} sequences of"
        f" {found.sequence_length} tokens a step (preset {plan.preset})\n"
    )
    for part, size in plan.memory.items():
        click.echo(f"  {part:<14}{size / 1e6:>10,.0f} MB")
    click.echo(f"  {'in all':<14}{plan.total / 1e6:>10,.0f} MB of {plan.limit / 1e6:,.0f} MB free\n")
    for reason in plan.reasons:
        click.echo(f"- {reason}")
    if plan.fits:
        click.echo(f"\nRun: {one_line(command)}")


def _machine(machine: Any) -> str:
    gpu = {"cuda": "GPU", "mps": "Apple GPU", "cpu": "no GPU in use"}[machine.device]
    capability = " {}.{}".format(*machine.capability) if machine.capability else ""
    count = f"{machine.visible} x " if machine.visible > 1 else ""
    return one_line(
        f"machine  {machine.cores} cores ({machine.threads} threads), {machine.memory / 1e9:.1f} GB of memory free;"
        f" {gpu}: {count}{machine.name}{capability}, {machine.device_memory / 1e9:.1f} GB"
    )


def _command(found: Any, flags: dict[str, Any]) -> str:
    """The same choices, given to ``treering train``; on several GPUs by torchrun."""
    words = ["treering", "train"]
    if found.plan.devices > 1:
        words = ["torchrun", "--standalone", "--nproc-per-node", str(found.plan.devices), "-m", *words]
    for name, value in flags.items():
        if name == "gpu" and value is not None:
            words.append("--gpu" if value else "--no-gpu")
        elif value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
