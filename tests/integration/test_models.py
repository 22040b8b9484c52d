"""The models of a store: gone on from, named, chosen, removed, compared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bytewise import base_of_bytes
from repositories import Repo, at_home
from treering import learning, opening, operations
from treering.errors import DataError, ModelError, StoreBusy, UsageError
from treering.files import locked
from treering.opening import Place
from treering.pipeline import learn as learn_stage
from treering.report import Reporter
from treering.store import Store


def place(repo: Repo, **train: object) -> Place:
    chosen = {"model": str(repo.path / "base"), "method": "full", "minutes": 60.0, "max_steps": 3, "gpu": False} | train
    return opening.place(repo.path, None, {"train": chosen})


def trained(where: Place, **how: Any) -> learn_stage.Learned:
    learned = learning.train(where, Reporter(), **how)
    assert learned
    return learned


def grow(repo: Repo, first: int, last: int) -> None:
    """Commits that say nearly the same again and again, at the same length, each of another number."""
    lines: list[str] = []
    for number in range(first, last):
        two = f"{number:02}"
        said = f"Settle the dispute about quota {two}\n\nThe ledger of the oracle is settled by the rule of {two}."
        repo.clock += 60
        before = f"from {repo.git('rev-parse', 'main')}\n" if number == first and first else ""
        lines.append(
            f"commit refs/heads/main\nmark :{number + 1}\ncommitter Ada <ada@example.com> {repo.clock} +0100\n"
            f"data {len(said)}\n{said}\n{before}M 644 inline src/quota_{two}.py\ndata 2\n{two}\n"
        )
    repo.git("fast-import", "--quiet", stdin="".join(lines).encode())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repo, str, str]]:
    """A repository learned from, grown, and gone on with: with the names of its two models."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = Repo(tmp_path_factory.mktemp("models") / "project")
        base_of_bytes(repo.path / "base")
        grow(repo, 0, 40)
        first = trained(place(repo))
        grow(repo, 40, 60)
        second = trained(place(repo, max_steps=25, learning_rate=3e-3, epochs=100), onward=True)
        assert second.current
        yield repo, first.folder.name, second.folder.name


@pytest.fixture
def grown(made: tuple[Repo, str, str], tmp_path: Path) -> tuple[Repo, str, str]:
    return made[0].copied(tmp_path / "project"), made[1], made[2]


def test_a_model_gone_on_with_learns_what_the_first_did_not_and_names_it(grown: tuple[Repo, str, str]) -> None:
    repo, first, second = grown
    with Store.existing(place(repo).folder) as store:
        reports = {folder.name: learn_stage.report_of(folder) for folder in learn_stage.models_of(store)}
    begun, told = reports[first], reports[second]
    assert told.parent == first
    assert told.holdout.difference is not None
    assert told.holdout.difference[2] < 0
    # What the first was judged on was new to the second, and half of what is new is held out.
    newer = 60 - begun.train_documents
    assert told.train_documents == 2 * (newer - newer // 2)


def test_a_model_that_is_not_shown_to_be_better_does_not_take_the_place(grown: tuple[Repo, str, str]) -> None:
    repo, _, second = grown
    grow(repo, 60, 80)
    learned = trained(place(repo, max_steps=1, learning_rate=1e-9), onward=True)
    assert learned.new
    assert not learned.current
    rows = learning.models(place(repo))
    assert [row.name for row in rows if row.current] == [second]
    assert learned.folder.name in {row.name for row in rows}


def test_a_chosen_model_stays_the_current_one_until_another_is_trained(grown: tuple[Repo, str, str]) -> None:
    repo, first, second = grown
    learning.use_model(place(repo), first)
    learning.use_model(place(repo), second)
    again = trained(place(repo, max_steps=4))
    assert again.current
    learning.use_model(place(repo), second)
    settled = trained(place(repo, max_steps=4))
    assert (settled.new, settled.current) == (False, False)
    assert [row.name for row in learning.models(place(repo)) if row.current] == [second]


def test_going_on_reads_the_history_as_the_model_was_told_it(grown: tuple[Repo, str, str]) -> None:
    repo, _, _ = grown
    flat = opening.place(
        repo.path, None,
        {
            "train": {"model": str(repo.path / "base"), "method": "full", "max_steps": 2, "gpu": False},
            "tokens": {"strategy": "flat"},
        },
    )  # fmt: skip
    parent = trained(flat).folder.name
    grow(repo, 60, 80)
    learned = trained(
        opening.place(repo.path, None, {"train": {"max_steps": 2, "gpu": False, "method": "full"}}), onward=True
    )
    assert (learned.report.strategy, learned.report.parent) == ("flat", parent)


def test_models_are_listed_used_and_removed_by_the_beginning_of_their_names(grown: tuple[Repo, str, str]) -> None:
    repo, first, second = grown
    where = place(repo)
    rows = {row.name: row for row in learning.models(where)}
    assert set(rows) == {first, second}
    assert rows[second].current
    assert rows[second].parent == rows[second].base == first
    with pytest.raises(UsageError, match="is the current model"):
        learning.remove_model(where, second[:9])
    assert learning.use_model(where, first[:9]).name == first
    assert learning.remove_model(where, second).name == second
    assert [row.name for row in learning.models(where)] == [first]
    with pytest.raises(UsageError, match="is no model") as caught:
        learning.use_model(where, second)
    assert first in caught.value.hint


def test_two_models_are_compared_on_what_neither_learned_from(grown: tuple[Repo, str, str]) -> None:
    repo, first, second = grown
    found = learning.compare_models(place(repo), first, second, Reporter())
    assert found.documents >= 8
    assert found.bits_per_byte[second] < found.bits_per_byte[first]
    assert found.difference[2] < 0
    assert found.verdict == f"{second} is better"


def test_two_trainings_at_once_are_refused_and_say_who_is_at_it(grown: tuple[Repo, str, str]) -> None:
    where = place(grown[0], seed=8)
    with locked(where.folder / "trainer.lock", "treering train"):  # noqa: SIM117
        with pytest.raises(StoreBusy, match="in use by treering train"):
            learning.train(where, Reporter())


def test_going_on_needs_a_model_and_enough_new_commits(grown: tuple[Repo, str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did not learn from") as few:
        learning.train(place(grown[0], seed=9), Reporter(), onward=True)
    assert "--continue" in few.value.hint
    other = Repo(tmp_path / "other")
    grow(other, 0, 10)
    operations.scrape(place(other), Reporter())
    with pytest.raises(ModelError, match="no trained model yet"):
        learning.train(place(other), Reporter(), onward=True)
