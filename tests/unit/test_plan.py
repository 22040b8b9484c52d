"""What a machine can train, by arithmetic: laws of every plan, and the machines people have."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computers import BASES, GB, MACHINES, computer, heaviest
from treering.errors import DataError, UsageError
from treering.lm.hardware import Machine, left_of, quota_of
from treering.lm.plan import METHODS, SHARE, memory_of, plan
from treering.lm.shape import Shape

DOCS = Path(__file__).parents[2] / "docs"
TURING = MACHINES["8 GB Turing (RTX 2060)"]
machines = st.sampled_from(sorted(MACHINES)).map(MACHINES.__getitem__)
shapes = st.sampled_from(sorted(BASES)).map(BASES.__getitem__)
methods = st.sampled_from(METHODS)
lengths = st.sampled_from([8, 256, 1024])


# laws ------------------------------------------------------------------------------------------------------------


@given(machines, shapes, methods, lengths, st.integers(1, 64), st.integers(1, 64), st.booleans(), st.booleans())
def test_memory_never_falls_when_the_batch_grows(
    machine: Machine, shape: Shape, method: str, length: int, batch: int, more: int, chunked: bool, again: bool
) -> None:
    small, large = (
        memory_of(machine, shape, method, size, length, chunked=chunked, checkpointing=again)
        for size in (batch, batch + more)
    )
    assert all(small[part] <= large[part] for part in small)


@given(machines, shapes, methods, lengths, st.integers(1, 300), st.integers(1, 8), st.floats(0.001, 100))
def test_a_plan_keeps_its_word(
    machine: Machine, shape: Shape, method: str, length: int, sequences: int, devices: int, memory: float
) -> None:
    machine = replace(machine, devices=devices, device_memory=round(memory * GB))
    made = plan(machine, shape, method=method, sequences=sequences, sequence_length=length)
    assert made.batch_size * made.accumulate * made.devices == sequences
    assert made.devices <= devices
    assert made.total == sum(made.memory.values())
    assert made.fits == (made.total <= SHARE * made.limit)
    if not made.fits:
        assert made.batch_size == 1
        assert made.chunked_loss
        assert made.gradient_checkpointing


@given(machines, shapes, lengths, st.integers(1, 64))
def test_a_lighter_method_never_needs_more(machine: Machine, shape: Shape, length: int, batch: int) -> None:
    full, lora, qlora = (
        sum(memory_of(machine, shape, method, batch, length, chunked=False, checkpointing=False).values())
        for method in METHODS
    )
    assert full > lora > qlora


# what is given up, and when --------------------------------------------------------------------------------------


def test_where_all_fits_nothing_is_given_up() -> None:
    made = plan(MACHINES["80 GB (A100, H100)"], BASES["gpt2"], method="full", sequences=8, sequence_length=1024)
    assert (made.batch_size, made.accumulate) == (8, 1)
    assert not made.gradient_checkpointing


def test_first_the_batch_is_parted_then_the_loss_and_last_are_activations_computed_again() -> None:
    seen = []
    for free in range(100, 0, -1):
        machine = computer("cuda", free / 10, (7, 5))
        made = plan(machine, BASES["gpt2"], method="full", sequences=4, sequence_length=1024)
        way = (made.batch_size, made.chunked_loss, made.gradient_checkpointing, made.fits)
        if way not in seen:
            seen.append(way)
    assert seen == [
        (4, False, False, True),
        (2, False, False, True),
        (1, False, False, True),
        (1, True, False, True),
        (1, True, True, True),
        (1, True, True, False),
    ]


def test_precision_is_what_the_device_computes_in() -> None:
    made = {
        name: plan(machine, BASES["gpt2"], method="lora", sequences=1, sequence_length=256)
        for name, machine in MACHINES.items()
    }
    assert [one.precision for one in made.values()] == ["32-true", "32-true", "16-mixed", "bf16-mixed", "bf16-mixed"]
    assert [one.base_dtype for one in made.values()] == ["float32", "float32", "float16", "bfloat16", "bfloat16"]
    assert [one.compile for one in made.values()] == [False, False, False, True, True]
    assert [one.preset for one in made.values()] == ["cpu", "mps", "cuda-8gb", "cuda-24gb", "cuda-80gb"]


def test_several_devices_share_a_step_only_where_it_parts_evenly() -> None:
    machine = computer("cuda", 24, (8, 6), devices=4)
    shares = {
        sequences: plan(machine, BASES["gpt2"], method="full", sequences=sequences, sequence_length=256).devices
        for sequences in (1, 2, 6, 8)
    }
    assert shares == {1: 1, 2: 2, 6: 3, 8: 4}


# the machines people have ----------------------------------------------------------------------------------------


def test_gpt2_is_trained_whole_on_8_gb() -> None:
    assert plan(TURING, BASES["gpt2"], method="full", sequences=4, sequence_length=1024).fits


def test_opt_350m_is_trained_whole_on_8_gb_only_one_by_one_with_all_that_saves_memory() -> None:
    made = plan(TURING, BASES["opt-350m"], method="full", sequences=4, sequence_length=1024)
    assert made.fits
    assert (made.batch_size, made.chunked_loss, made.gradient_checkpointing) == (1, True, True)
    assert made.memory["gradients"] + made.memory["optimizer"] + 4 * 331196416 == pytest.approx(5.3 * GB, rel=0.01)


def test_opt_1_3b_is_not_trained_whole_on_8_gb_and_the_plan_says_what_would_fit() -> None:
    made = plan(TURING, BASES["opt-1.3b"], method="full", sequences=4, sequence_length=1024)
    assert not made.fits
    assert made.reasons[-1].startswith("lora would fit")
    lora = plan(TURING, BASES["opt-1.3b"], method="lora", sequences=4, sequence_length=1024)
    assert lora.fits
    assert lora.memory["weights"] == pytest.approx(2.6 * GB, rel=0.02)


def test_where_no_method_fits_a_smaller_base_is_named() -> None:
    made = plan(computer("cuda", 3, (7, 5)), BASES["a 7B Llama"], method="full", sequences=1, sequence_length=256)
    assert "no method fits; by qlora a base of about" in made.reasons[-1]
    none = plan(computer("cpu", 0.5), BASES["gpt2"], method="full", sequences=1, sequence_length=256)
    assert none.reasons[-1].startswith("no method fits, nor would a smaller base")


def test_a_method_there_is_not_and_a_sequence_too_long_are_told() -> None:
    with pytest.raises(UsageError, match="unknown method `magic`"):
        plan(TURING, BASES["gpt2"], method="magic", sequences=1, sequence_length=256)
    with pytest.raises(DataError, match="reads at most 1024"):
        plan(TURING, BASES["gpt2"], method="full", sequences=1, sequence_length=2048)


def row(name: str, machine: Machine) -> str:
    """A row of the table of docs/training.md."""
    cells = []
    for shape in BASES.values():
        best = heaviest(machine, shape)
        saved = "".join(
            [f", {best.batch_size} x {best.accumulate}",
             ", chunked" if best.chunked_loss and best.precision == "16-mixed" else "",
             ", checkpointed" if best.gradient_checkpointing else ""]
        )  # fmt: skip
        cells.append(f"{best.method} {best.total / GB:.1f} GB{saved}" if best.fits else "-")
    return f"| {name} | {best.preset} | {best.precision} | {' | '.join(cells)} |"


@pytest.mark.parametrize("name", MACHINES)
def test_the_table_of_the_docs_is_what_the_plan_says(name: str) -> None:
    assert row(name, MACHINES[name]) in (DOCS / "training.md").read_text("utf-8").splitlines()


# control groups --------------------------------------------------------------------------------------------------


def group(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")
    return folder


def test_a_control_group_leaves_its_limit_less_what_is_used_and_the_cache_counts_as_left(tmp_path: Path) -> None:
    made = group(tmp_path, memory__max="1000", memory__current="700", memory__stat="anon 400\ninactive_file 250")
    assert left_of(made) == 550


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    made = group(
        tmp_path, memory__limit_in_bytes="1000", memory__usage_in_bytes="900", memory__stat="total_inactive_file 100",
        cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000",
    )  # fmt: skip
    assert (left_of(made), quota_of(made)) == (200, 1.5)


def test_a_control_group_without_limits_leaves_all(tmp_path: Path) -> None:
    made = group(tmp_path, memory__max="max", memory__current="700", memory__stat="anon 400", cpu__max="max 100000")
    assert left_of(made) > 2**60
    assert quota_of(made) == float("inf")
    assert quota_of(group(tmp_path, cpu__max="50000 100000")) == 0.5
    assert left_of(tmp_path / "nowhere") > 2**60
