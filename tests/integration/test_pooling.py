"""One model of several repositories, by real torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from repositories import Repo
from tiny import tiny_base
from treering import pooling
from treering.errors import DataError, NoStore, StoreBusy, UsageError
from treering.files import locked
from treering.fleets import Orders, Worker
from treering.operate import roster
from treering.report import Reporter
from treering.store.fleet import Fleet, Repository, store_of

Flags = dict[str, dict[str, object]]


@pytest.fixture
def flags(tmp_path: Path) -> Flags:
    base = str(tiny_base(tmp_path / "base"))
    return {
        "train": {"model": base, "method": "full", "max_steps": 3, "batch_size": 2, "gpu": False},
        "tokens": {"sequence_length": 32},
    }


@pytest.fixture
def fleet(tmp_path: Path, flags: Flags) -> Path:
    """Three repositories of which one is a fork of another, and one without tokens."""
    folder = tmp_path / "fleet"
    with Fleet(folder) as register:
        for topic in ("ledger", "oracle", "bridge"):
            repo = Repo(tmp_path / topic)
            for number in range(12):
                repo.commit(f"Teach the {topic} rule {number}", **{f"{topic}__py": f"def {topic}_{number}(): pass\n"})
        fork = repo.copied(tmp_path / "fork")
        fork.commit("Leave the bridge", bridge__py="")
        made = [Repository(source=str(tmp_path / name), name=name) for name in ("ledger", "oracle", "bridge", "fork")]
        register.keep(made)
        worker = Worker(Orders(fleet=str(folder), run="1", flags=flags, tokens=True))
        register.keep(worker.work(one) for one in made)
        Repo(tmp_path / "plain").commit("Say nothing", a="1")
        plain = Worker(Orders(fleet=str(folder), run="1")).work(
            Repository(source=str(tmp_path / "plain"), name="plain")
        )
        register.keep([plain])
    return folder


def test_a_model_is_made_of_all_and_judged_on_what_it_never_saw(fleet: Path, flags: Flags) -> None:
    report = Reporter()
    done = pooling.train(fleet, report, flags=flags, weights={"ledger": 2.0}, apart=["oracle"])
    assert done
    assert {one.name for one in done.shares} == {"ledger", "bridge", "fork"}
    shares = {one.name: one for one in done.shares}
    assert shares["bridge"].repeats + shares["fork"].repeats == 12, "a fork is learned once"
    assert (shares["ledger"].weight, shares["bridge"].weight) == (2.0, 1.0)
    assert [one.name for one in done.apart] == ["oracle"]
    assert done.elsewhere
    assert done.elsewhere.documents > 0
    assert done.elsewhere.bits_per_byte["base"] is not None
    assert done.report.training.steps == 3
    assert done.left_out == {"plain": "it has no token stream: run `treering fleet update --tokens`"}
    assert any("plain is left out" in warning for warning in report.warnings)
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(done.folder, local_files_only=True)
    again = pooling.train(fleet, Reporter(), flags=flags, weights={"ledger": 2.0}, apart=["oracle"])
    assert again == done
    other = pooling.train(fleet, Reporter(), flags=flags)
    assert other
    assert other.folder != done.folder
    assert other.elsewhere is None


def test_what_a_fork_repeats_of_what_was_learned_judges_nothing(fleet: Path, flags: Flags) -> None:
    report = Reporter()
    done = pooling.train(fleet, report, flags=flags, apart=["fork"])
    assert done
    (share,) = done.apart
    assert (share.documents, share.repeats) == (1, 12)
    assert done.elsewhere is None
    assert any("not judged on fork" in warning for warning in report.warnings)


def test_other_repositories_apart_are_judged_on_without_learning_again(fleet: Path, flags: Flags) -> None:
    fork = Worker(Orders(fleet=str(fleet), run="2", flags=flags, tokens=True))
    first = pooling.train(fleet, Reporter(), flags=flags, apart=["oracle"])
    with Fleet(fleet) as register:
        (oracle,) = [one for one in register.repositories() if one.name == "oracle"]
        Repo(Path(oracle.source)).commit("Ask the oracle again", oracle__py="AGAIN = True\n")
        register.keep([fork.work(oracle)])
    again = pooling.train(fleet, Reporter(), flags=flags, apart=["oracle"])
    assert first
    assert again
    assert again.folder == first.folder
    assert again.report == first.report
    assert (first.apart[0].documents, again.apart[0].documents) == (12, 13)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"weights": {"ledger": 0.0}}, "the weight of ledger"),
        ({"weights": {"nobody": 1.0}}, "the fleet has no nobody"),
        ({"apart": ["nobody"]}, "the fleet has no nobody"),
    ],
)
def test_what_cannot_be_asked(fleet: Path, flags: Flags, how: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pooling.train(fleet, Reporter(), flags=flags, **how)  # type: ignore[arg-type]
    assert not (fleet / "models").exists()


def test_a_torn_stream_is_left_out_and_said(fleet: Path, flags: Flags) -> None:
    (torn,) = (store_of(fleet, "oracle") / "tokens").glob("*/tokens.bin")
    torn.write_bytes(b"12")
    report = Reporter()
    done = pooling.train(fleet, report, flags=flags)
    assert done
    assert "is torn" in done.left_out["oracle"]


@pytest.mark.parametrize("kept", [0, 4096], ids=["all of it", "all but its first page"])
def test_a_damaged_store_is_left_out_and_said(fleet: Path, flags: Flags, kept: int) -> None:
    path = store_of(fleet, "oracle") / "treering.db"
    path.write_bytes(path.read_bytes()[:kept].ljust(path.stat().st_size, b"\xaa"))
    report = Reporter()
    done = pooling.train(fleet, report, flags=flags)
    assert done
    assert {one.name for one in done.shares} == {"ledger", "bridge", "fork"}
    assert "treering.db is damaged" in done.left_out["oracle"]
    assert any("oracle is left out" in warning for warning in report.warnings)


def test_there_is_nothing_to_learn_from(tmp_path: Path, flags: Flags, make_repo: Callable[..., Repo]) -> None:
    with pytest.raises(NoStore, match="no fleet"):
        pooling.train(tmp_path / "none", Reporter(), flags=flags)
    make_repo("one").commit("Say nothing", a="1")
    with Fleet(tmp_path / "fleet") as register:
        roster.add(register, [str(tmp_path / "one")])
    with pytest.raises(DataError, match="has tokens to learn from"):
        pooling.train(tmp_path / "fleet", Reporter(), flags=flags)


def by_torchrun(fleet: Path, base: Path) -> "subprocess.CompletedProcess[bytes]":
    """Two processes; what hangs fails the test."""
    launcher = (sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    how = ("--method", "full", "--max-steps", "2", "--batch-size", "2", "--sequence-length", "32", "--no-gpu", "--json")
    return subprocess.run(
        [*launcher, "-m", "treering", "fleet", "train", fleet, "--model", base, *how],
        check=False, capture_output=True, timeout=240, env=os.environ | {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_of_two_processes_the_first_one_writes_and_tells(fleet: Path, tmp_path: Path) -> None:
    with locked(fleet / "trainer.lock", "another"):
        refused = by_torchrun(fleet, tmp_path / "base")
    assert refused.returncode != 0
    assert not refused.stdout
    assert refused.stderr.count(b"is in use by another") == 1, "the second one learns beside it and writes nothing"
    (cause,) = refused.stderr.decode().partition("Root Cause")[2:]
    assert f"exitcode  : {StoreBusy.exit_code} " in cause
    trained = by_torchrun(fleet, tmp_path / "base")
    assert trained.returncode == 0, trained.stderr
    told = msgspec.json.decode(trained.stdout, type=pooling.Pooled)
    assert (told.report.training.processes, told.report.training.steps) == (2, 2)
    (folder,) = (fleet / "models").iterdir()
    assert told.folder == str(folder)
    assert not [one.name for one in folder.iterdir() if one.is_dir()], "no checkpoint is left"
    again = by_torchrun(fleet, tmp_path / "base")
    assert (again.returncode, again.stdout) == (0, trained.stdout), again.stderr


def test_what_fails_every_process_ends_them_all(tmp_path: Path, flags: Flags) -> None:
    failed = by_torchrun(tmp_path / "none", tmp_path / "base")
    assert failed.returncode != 0
    assert b"there is no fleet in" in failed.stderr
    assert f"exitcode  : {NoStore.exit_code} " in failed.stderr.decode()
