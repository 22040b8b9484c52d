"""Many repositories searched as one: what holds of their hits, what may not be seen, and what of them is damaged."""

import json
import resource
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from msgspec import UNSET
from msgspec.structs import replace

from repositories import Repo, at_home, tell_story
from treering import finding, modelpack, opening, operations
from treering.cli.main import main
from treering.config import Settings
from treering.errors import DataError, StoreError, UsageError
from treering.gathering import Gathering
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.fusion import z_scores
from treering.search.history import History
from treering.search.lexical import Lexical, Scope, asked_words
from treering.search.shards import Shards
from treering.store import Store
from treering.text.paths import matching
from treering.types import Filters, Hit
from treering.vectors.embedder import Embedder, embed

EVERYTHING = 1000
QUESTIONS = (
    "how is a dispute settled", "gateway bridge receipts", "oracle_rule_3", "the retry limit of the client", "#41",
    "src/ledger.py", "core", '"return value" oracle', '"->"', "cli local changes", "raise quota validator",
)  # fmt: skip


def tell_shop(repo: Repo) -> Repo:
    """A history with words of the story's own and others, a number, a merge, and a message said three times."""
    repo.commit("Open the shop", src_0_shop__py="def sell(order):\n    return order\n")
    repo.commit("Raise the retry limit (#41)", src_0_client__py="RETRY_LIMIT = 9\n")
    for number in range(3):
        repo.commit("tidy up shelves", **{f"shelf_{number}__py": f"def shelf_{number}():\n    return {number}\n"})
    repo.git("switch", "--quiet", "-c", "basket")
    repo.commit("Count what is bought", src_0_basket__py="def count_basket(basket):\n    return len(basket)\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("Settle a dispute with a customer", src_0_dispute__py="def settle(dispute):\n    return dispute\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge basket\n\nPenguins may buy fish now (#77).", "basket")
    repo.clock = 1_500_000_000  # a clock that went wrong
    repo.commit("Write receipts", src_0_ledger__py="def receipt(order):\n    return [order]\n")
    return repo


def fork(repo: Repo, to: Path) -> Repo:
    """The story without its merge; the commit that it brought comes in with another one, and one is new."""
    other = repo.copied(to)
    shutil.rmtree(to / ".treering", ignore_errors=True)
    merge = other.git("rev-list", "--merges", "HEAD")
    other.git("reset", "--quiet", "--hard", f"{merge}^1")
    other.git("merge", "--quiet", "--no-ff", "-m", "Merge walruses\n\nThey sing.", "feature/bridge")
    other.commit("Teach the fork to sing", song__py="def sing(walrus):\n    return walrus\n")
    return other


Stores = dict[str, Path]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    """Three repositories with their indexes, made once; what writes takes copies of the stores."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        folder = tmp_path_factory.mktemp("fleet")
        bank = tell_story(Repo(folder / "bank"))
        made = {"bank": bank, "fork": fork(bank, folder / "fork"), "shop": tell_shop(Repo(folder / "shop"))}
        for repo in made.values():
            operations.index(opening.place(repo.path), Reporter())
    return made


@pytest.fixture(scope="module")
def stores(repos: dict[str, Repo]) -> Stores:
    return {name: repo.path / ".treering" for name, repo in repos.items()}


@pytest.fixture
def fleet(stores: Stores, tmp_path: Path) -> Path:
    """A folder with copies of the stores, as a fleet has them."""
    for name, folder in stores.items():
        shutil.copytree(folder, tmp_path / "fleet" / "stores" / name)
    return tmp_path / "fleet"


def gathered(stores: Stores, embedder: Embedder | None, report: Reporter | None = None) -> Gathering:
    return Gathering(stores, Settings(), report or Reporter(), embedder=embedder)


def only(stores: Stores, *names: str) -> Stores:
    return {name: stores[name] for name in names}


def answers(opened: Gathering, visible: Collection[str] | None = None, **filters: Any) -> list[list[Hit]]:
    chosen = Filters(**filters)
    return [opened.search(one, limit=EVERYTHING, filters=chosen, visible=visible) for one in QUESTIONS]


def of(hits: list[Hit]) -> set[object]:
    return {hit.repository for hit in hits}


# one and many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bank", "shop"])
@pytest.mark.parametrize("by_meaning", [True, False])
def test_of_one_repository_the_hits_are_those_of_its_own_search(
    stores: Stores, minilm: Embedder, name: str, by_meaning: bool
) -> None:
    embedder = minilm if by_meaning else None
    with Store.existing(stores[name]) as store:
        finder = Finder(store, embedder)
        finder_of_many = Finder(Shards({name: store}), embedder)
        newest = finder.history.hashes[-1]
        for filters in (Filters(), Filters(include_merges=True, path="src", since="2023-01-01"), Filters(author="ada")):
            for question in (*QUESTIONS, newest, newest[:9]):
                own = finder.search(question, limit=EVERYTHING, filters=filters)
                assert [replace(hit, repository=name) for hit in own] == finder_of_many.search(
                    question, limit=EVERYTHING, filters=filters
                )
        early = finder.history.hashes[4]
        own = finder.search("retry oracle dispute", limit=EVERYTHING, at=early)
        assert own
        assert [replace(hit, repository=name) for hit in own] == finder_of_many.search(
            "retry oracle dispute", limit=EVERYTHING, at=early
        )
        assert [hit.commit_hash for hit in finder.similar(early, limit=9)] == [
            hit.commit_hash for hit in finder_of_many.similar(early, limit=9)
        ]


def test_what_a_finder_offers_beside_search_holds_for_many(
    repos: dict[str, Repo], stores: Stores, minilm: Embedder
) -> None:
    with ExitStack() as stack:
        many = Finder(
            Shards({name: stack.enter_context(Store.existing(folder)) for name, folder in stores.items()}), minilm
        )
        private = matching(many.store.paths(), ["ledger.py"])
        assert private == ("src/ledger.py",)
        for question in QUESTIONS:
            hits = many.without(private).search(question, limit=EVERYTHING, filters=Filters(include_merges=True))
            assert all("src/ledger.py" not in hit.files for hit in hits)
        assert "src/ledger.py" in [path for hit in many.search("receipts", limit=EVERYTHING) for path in hit.files]
        (nearest, *_) = many.nearest(embed(minilm, ["Settle a dispute with a customer"])[0], limit=3)
        told = {many.history.hashes[nearest]: "it is near"}
        (hit,) = many.told(told, "dispute")
        assert (hit.subject, hit.repository, hit.why) == ("Settle a dispute with a customer", "shop", "it is near")


def test_a_hit_of_one_repository_names_none(repos: dict[str, Repo]) -> None:
    hits = finding.search(opening.place(repos["bank"].path), "dispute", Reporter())
    assert hits
    assert of(hits) == {UNSET}


def test_every_hit_names_its_repository(repos: dict[str, Repo], stores: Stores, minilm: Embedder) -> None:
    with gathered(stores, minilm) as opened:
        hits = opened.search("how is a dispute settled", limit=EVERYTHING)
    assert {"bank", "shop"} <= of(hits)
    for hit in hits:
        shown = repos[str(hit.repository)].git("show", "--no-patch", "--format=%s", hit.commit_hash)
        assert shown == hit.subject


def test_the_parts_of_a_history_answer_as_the_whole_does(make_repo: Any, tmp_path: Path, minilm: Embedder) -> None:
    """Where no message says nothing and none is of a merge: those are counted by repository."""
    repo = make_repo()
    topics = ("dispute", "settlement", "ledger", "oracle", "bridge", "quota", "receipt", "validator")
    for number in range(24):
        topic = topics[number * 5 % 8]
        repo.commit(
            f"Teach the {topic} about the {topics[number % 8]}, lesson {'abcdefghijklmnopqrstuvwxyz'[number]}q",
            **{f"src_0_{topic}__py": f"def {topic}_rule_{number}(value):\n    return value + {number}\n"},
        )
    first, last = repo.git("log", "-2", "--skip=11", "--format=%cI").splitlines()
    parts: dict[str, dict[str, object]] = {"whole": {}, "old": {"until": last}, "new": {"since": first}}
    made = {}
    for name, scrape in parts.items():
        made[name] = tmp_path / name
        operations.index(opening.place(repo.path, made[name], {"scrape": scrape}), Reporter())
    with gathered(only(made, "whole"), minilm) as whole, gathered(only(made, "old", "new"), minilm) as halves:
        for question in (*QUESTIONS, "teach the oracle about receipts", "ledger_rule_7"):
            one = whole.search(question, limit=EVERYTHING)
            two = halves.search(question, limit=EVERYTHING)
            assert [replace(hit, repository=UNSET) for hit in one] == [replace(hit, repository=UNSET) for hit in two]
        assert of(halves.search("teach the oracle about receipts", limit=EVERYTHING)) == {"old", "new"}


def test_a_word_is_as_rare_as_it_is_in_all_repositories(stores: Stores, minilm: Embedder) -> None:
    words = asked_words("dispute settle penguins")
    held, seen = dict.fromkeys(words, 0), 0
    for folder in stores.values():
        with Store.existing(folder) as store:
            history = Finder(store, None).history
            for word, found in zip(words, history.held(words), strict=True):
                held[word] += len(np.setdiff1d(found.anywhere, np.flatnonzero(history.merges)))
            seen += len(history)
    with gathered(stores, minilm) as opened:
        history = opened.finder(None).history
        leg = Lexical(Scope(history, history.everything, merge_texts=False), words)
        assert leg.scope.seen == seen
        own = [np.setdiff1d(found.anywhere, np.flatnonzero(history.merges)) for found in history.held(words)]
        assert dict(zip(words, map(len, own), strict=True)) == held


@pytest.fixture
def with_mute(stores: Stores, make_repo: Any) -> Stores:
    """And a repository of which no message says anything."""
    mute = make_repo("mute")
    for number, topic in enumerate(("oracle", "penguin", "basket", "walrus", "ledger", "retry", "limit", "glacier")):
        mute.commit("wip", **{f"src_0_{topic}__py": f"def {topic}_{number}(value):\n    return value\n"})
    operations.index(opening.place(mute.path), Reporter())
    return stores | {"mute": mute.path / ".treering"}


def test_how_much_the_messages_of_a_repository_say_is_told_by_its_own(with_mute: Stores) -> None:
    with ExitStack() as stack:
        opened = {name: stack.enter_context(Store.existing(folder)) for name, folder in with_mute.items()}
        many = Finder(Shards(opened), None)
        legs = many.ask("the oracle rule of the client").legs
        assert legs
        for place, (name, store) in enumerate(opened.items()):
            theirs = Finder(store, None).ask("the oracle rule of the client").legs
            assert theirs
            assert set(legs.own_share[legs.repository == place].tolist()) == {theirs.share}, name
            own = legs.repository == place
            if legs.silent[own].any():
                assert legs.meant[own] == pytest.approx(z_scores(legs.diff[own]))
        assert legs.own_share.max() == 1
        assert 0 < legs.share < 0.2


def test_a_repository_whose_messages_say_nothing_is_found_and_stands_before_no_answer_of_another(
    with_mute: Stores, minilm: Embedder
) -> None:
    with gathered(with_mute, minilm) as opened:
        (first, *_) = opened.search("where do glaciers begin")
        assert (first.repository, first.files) == ("mute", ("src/glacier.py",))
        for asked, repository in (
            ("Raise the retry limit", "shop"), ("Count what is bought", "shop"), ("Teach the fork to sing", "fork"),
        ):  # fmt: skip
            (first, *_) = opened.search(asked)
            assert first.subject.startswith(asked)
            assert first.repository == repository


# which repositories ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "names"),
    [(("shop",), {"shop"}), (("*o*",), {"shop", "fork"}), (("bank", "sh*"), {"bank", "shop"}), ((), None)],
)
def test_only_the_repositories_that_are_asked_for_answer(
    stores: Stores, minilm: Embedder, wanted: tuple[str, ...], names: set[str] | None
) -> None:
    with gathered(stores, minilm) as opened:
        for question in QUESTIONS:
            hits = opened.search(question, limit=EVERYTHING, filters=Filters(repositories=wanted))
            everywhere = opened.search(question, limit=EVERYTHING)
            assert of(hits) <= (names or {"bank", "fork", "shop"})
            if wanted == ("shop",):  # no other has a commit of these patches
                told = {hit.commit_hash for hit in everywhere if hit.repository == "shop"}
                assert told <= {hit.commit_hash for hit in hits}


def test_a_repository_that_is_not_there_is_an_error_that_names_those_that_are(stores: Stores, minilm: Embedder) -> None:
    with gathered(stores, minilm) as opened, pytest.raises(UsageError, match="no repository 'shops' here") as told:
        opened.search("dispute", filters=Filters(repositories=("shops",)))
    assert told.value.hint == "repositories: bank, fork, shop"


@pytest.mark.parametrize("seen", [("bank",), ("shop", "fork"), ("bank", "shop")])
def test_what_may_not_be_seen_is_as_if_it_were_not_there(
    stores: Stores, minilm: Embedder, seen: tuple[str, ...]
) -> None:
    names = [name for name in stores if name in seen]
    with gathered(stores, minilm) as everyone, gathered(only(stores, *names), minilm) as others:
        everything = answers(everyone)
        for filters in ({}, {"include_merges": True}, {"path": "src"}):
            assert answers(everyone, frozenset(seen), **filters) == answers(others, **filters)
        assert answers(everyone) == everything  # nobody sees less for it
        assert everything != answers(everyone, frozenset(seen))


def test_what_may_not_be_seen_is_not_named_either(repos: dict[str, Repo], stores: Stores, minilm: Embedder) -> None:
    hidden = repos["shop"].git("rev-parse", "HEAD")
    with gathered(stores, minilm) as opened:
        assert of(opened.search(hidden)) == {"shop"}
        assert hidden not in [hit.commit_hash for hit in opened.search(hidden, visible={"bank"}, limit=EVERYTHING)]
        assert opened.similar(hidden)
        with pytest.raises(UsageError, match="there is no commit"):
            opened.similar(hidden, visible={"bank"})
        with pytest.raises(UsageError) as told:
            opened.search("x", visible={"bank"}, filters=Filters(repositories=("shop",)))
        assert told.value.hint == "repositories: bank"


def test_who_may_see_nothing_is_told_that_there_is_nothing(stores: Stores, minilm: Embedder) -> None:
    with gathered(stores, minilm) as opened:
        for visible in ((), ("elsewhere",)):
            with pytest.raises(DataError, match="no index to search"):
                opened.search("dispute", visible=visible)


# forks -----------------------------------------------------------------------------------------------------------


def test_what_one_repository_is_built_of_is_its_own(repos: dict[str, Repo], stores: Stores, tmp_path: Path) -> None:
    """Of two that have all commits of the bank, its merge too, of the fork, and of the shop with its wrong clock."""
    twin = repos["bank"].copied(tmp_path / "twin")
    shutil.rmtree(twin.path / ".treering")
    newest = twin.commit("Only the twin has this", twin__py="TWIN = 2\n")
    operations.index(opening.place(twin.path), Reporter())
    many = only(stores, "bank") | {"twin": twin.path / ".treering"} | only(stores, "fork", "shop")
    with ExitStack() as stack:
        opened = {name: stack.enter_context(Store.existing(folder)) for name, folder in many.items()}
        history = History(Shards(opened))
        parts = {name: History(store) for name, store in opened.items()}
        places = {name: np.flatnonzero(history.repository == place) for place, name in enumerate(many)}
        brought = history.brought(history.everything.copy())
        for name, part in parts.items():
            own = places[name]
            assert [history.hashes[number] for number in own] == part.hashes
            assert np.array_equal(history.lengths[own], part.lengths)
            for told, known in ((history.merged_by, part.merged_by), (brought, part.brought(part.everything.copy()))):
                assert np.array_equal(told[own], np.where(known >= 0, own[known], -1))
        assert sum(len(part) for part in parts.values()) == len(history)
        reached = np.flatnonzero(history.at(newest))
        assert set(reached) == set(places["twin"][np.flatnonzero(parts["twin"].at(newest))])
        assert len(reached) > 20


def test_a_merge_tells_only_of_the_commits_that_it_brought_into_its_own_repository(
    repos: dict[str, Repo], stores: Stores, minilm: Embedder
) -> None:
    bridge = repos["bank"].git("rev-parse", "feature/bridge")
    assert bridge == repos["fork"].git("rev-parse", "feature/bridge")
    merges = {name: repos[name].git("rev-list", "--merges", "HEAD") for name in ("bank", "fork")}
    with gathered(stores, minilm) as opened:
        for name, words in (("bank", "it brings the gateway"), ("fork", "walruses sing")):
            (hit,) = (
                hit
                for hit in opened.search(words, limit=EVERYTHING, filters=Filters(repositories=(name,)))
                if hit.commit_hash == bridge
            )
            assert hit.merged_by == merges[name]
        hits = opened.search("walruses", limit=EVERYTHING, filters=Filters(include_merges=True))
        assert of([hit for hit in hits if "walruses" in hit.why]) == {"fork"}


def test_what_forks_have_in_common_is_shown_once(repos: dict[str, Repo], stores: Stores, minilm: Embedder) -> None:
    changes_nothing = repos["bank"].git("rev-parse", "main")  # and has no patch to be told apart by
    with gathered(stores, minilm) as opened:
        for question in QUESTIONS:
            found = [hit.commit_hash for hit in opened.search(question, limit=EVERYTHING)]
            found = [name for name in found if name != changes_nothing]
            assert len(set(found)) == len(found)
        everything = opened.search("market rule value", limit=EVERYTHING)
        assert "Teach the fork to sing" in [hit.subject for hit in everything]
        assert len(everything) > len(opened.search("market rule value", limit=EVERYTHING, visible={"bank"}))


def test_a_commit_of_two_repositories_is_found_by_its_hash(
    repos: dict[str, Repo], stores: Stores, minilm: Embedder
) -> None:
    first = repos["bank"].git("rev-list", "--max-parents=0", "HEAD")
    with gathered(stores, minilm) as opened:
        (hit,) = opened.search(first)
        assert hit.why == "that hash"
        assert opened.similar(first[:12]) == opened.similar(first)
        for name in ("bank", "fork"):
            assert of(opened.search(first, filters=Filters(repositories=(name,)))) == {name}


def test_a_message_that_each_of_several_repositories_has_says_something(
    make_repo: Any, stores: Stores, minilm: Embedder
) -> None:
    """The message that the shop has three times, and another repository three times."""
    other = make_repo("other")
    for number in range(3):
        other.commit("tidy up shelves", **{f"other_{number}__py": f"def other_{number}():\n    pass\n"})
    operations.index(opening.place(other.path), Reporter())
    both = only(stores, "shop") | {"other": other.path / ".treering"}
    with gathered(both, minilm) as opened:
        history = opened.finder(None).history
        assert not history.empty(history.everything).any()
    for number in range(2):
        other.commit("tidy up shelves", **{f"more_{number}__py": f"def more_{number}():\n    pass\n"})
    operations.index(opening.place(other.path), Reporter())
    with gathered(both, minilm) as opened:
        history = opened.finder(None).history
        silent = history.repository[history.empty(history.everything)]
        assert [history.store.repositories[one] for one in silent] == ["other"] * 5


# what is damaged -------------------------------------------------------------------------------------------------


def missing(folder: Path) -> None:
    (folder / "treering.db").unlink()
    (folder / "ledger.db").touch()


def garbage(folder: Path) -> None:
    for path in folder.glob("treering.db*"):
        path.unlink()
    (folder / "treering.db").write_bytes(b"no database " * 1000)


def newer(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "treering.db")) as db:
        db.execute("PRAGMA user_version=999")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    with Store(folder):
        pass


def torn_lengths(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "treering.db")) as db, db:
        db.execute("UPDATE documents SET lengths = x'0102' WHERE commit_id = 3")


def torn_postings(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "treering.db")) as db, db:
        db.execute("UPDATE postings SET holders = x'0102'")


def torn_hunks(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "treering.db")) as db, db:
        db.execute("UPDATE documents SET hunks = x'0102'")


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (missing, "there is no index"), (garbage, "not a database"), (newer, "newer treering"),
        (empty, "holds no commits"), (torn_lengths, "lengths of a commit are torn"),
        (torn_postings, "holders of a word are torn"), (torn_hunks, "is damaged"),
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_read_is_left_out_and_named(
    fleet: Path, minilm: Embedder, damage: Any, cause: str
) -> None:
    stores = opening.stores_of(fleet)
    damage(stores["shop"])
    report = Reporter()
    with gathered(stores, minilm, report) as opened, gathered(only(stores, "bank", "fork"), minilm) as others:
        assert answers(opened) == answers(others)
        assert opened.repositories == ("bank", "fork")
    (warning,) = report.warnings
    assert warning.startswith("searching without shop: ")
    assert cause in warning
    assert warning.endswith(")")  # with the way out


def torn_matrix(folder: Path) -> None:
    (matrix,) = (folder / "vectors").glob("*/vectors.f32")
    matrix.write_bytes(matrix.read_bytes()[:1000])


def no_vectors(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "treering.db")) as db, db:
        db.execute("UPDATE vectors SET fingerprint = 'another model'")


def few_vectors(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "treering.db")) as db, db:
        db.execute("DELETE FROM vectors WHERE row > 9")


@pytest.mark.parametrize(
    ("damage", "cause"), [(torn_matrix, "is torn"), (no_vectors, "have vectors"), (few_vectors, "have vectors")]
)
def test_a_repository_without_vectors_is_found_by_its_words(
    fleet: Path, minilm: Embedder, damage: Any, cause: str
) -> None:
    stores = opening.stores_of(fleet)
    damage(stores["shop"])
    report = Reporter()
    with gathered(stores, minilm, report) as opened:
        first, *_ = opened.search("raise the retry limit of the client")
        assert first.repository == "shop"
        assert "meaning" not in first.why
        history, dense = opened.finder(None).history, opened.finder(None).dense
        assert dense
        for waiting in dense.waiting.values():  # neither near nor far
            assert {history.store.repositories[place] for place in history.repository[waiting]} == {"shop"}
            assert waiting.sum() == 9
        everything = opened.search("how is a dispute settled", limit=EVERYTHING)
        assert all(("meaning" in hit.why) == (hit.repository != "shop") for hit in everything)
        assert "shop" in of(everything)
    (warning,) = report.warnings
    assert warning.startswith("searching by words only in shop: ")
    assert cause in warning
    assert "treering index" in warning


def test_without_a_model_words_answer_for_all_and_that_is_said_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        modelpack.PACK, "minilm.weights", modelpack.PackFile("no-such-package", "model.safetensors", "0")
    )
    report = Reporter()
    with gathered(stores, None, report) as opened:
        assert opened.search("raise the retry limit")[0].subject == "Raise the retry limit (#41)"
    (warning,) = report.warnings
    assert warning.startswith("searching by words only: ")


def test_a_store_that_is_damaged_while_it_is_open_is_left_out(fleet: Path, minilm: Embedder) -> None:
    stores = opening.stores_of(fleet)
    report = Reporter()
    with gathered(stores, minilm, report) as opened, gathered(only(stores, "bank", "fork"), minilm) as others:
        assert "shop" in of(opened.search("dispute", limit=EVERYTHING))
        torn_postings(stores["shop"])
        assert answers(opened) == answers(others)
    assert [one.partition(":")[0] for one in report.warnings] == ["searching without shop"]


def test_a_store_that_was_made_anew_while_it_was_open_is_read_anew(
    repos: dict[str, Repo], fleet: Path, minilm: Embedder
) -> None:
    stores = opening.stores_of(fleet)
    report = Reporter()
    with gathered(stores, minilm, report) as opened:
        before = answers(opened)
        torn_hunks(stores["shop"])
        shutil.rmtree(stores["shop"])
        shutil.copytree(repos["shop"].path / ".treering", stores["shop"])
        assert answers(opened) == before
    assert report.warnings == []


def test_what_is_indexed_while_it_is_open_is_not_taken_for_another_repository(
    make_repo: Any, stores: Stores, tmp_path: Path, minilm: Embedder
) -> None:
    grown = make_repo("grown")
    grown.commit("Start to grow", grown__py="GROWN = 1\n")
    operations.index(opening.place(grown.path), Reporter())
    many = {"grown": grown.path / ".treering"} | stores
    with ExitStack() as stack:
        opened = [stack.enter_context(Store.existing(folder)) for folder in many.values()]
        asked = Finder(Shards(dict(zip(many, opened, strict=True))), minilm)
        before = [asked.search(one, limit=EVERYTHING) for one in QUESTIONS]
        late = Shards(dict(zip(many, opened, strict=True)))
        never = Finder(Shards(dict(zip(many, opened, strict=True))), minilm)
        for number in range(5):
            grown.commit(f"Settle dispute {number} of it", src_0_more__py=f"def dispute_{number}():\n    pass\n")
        operations.index(opening.place(grown.path), Reporter())
        for finder in (asked, never, Finder(late, minilm)):
            assert [finder.search(one, limit=EVERYTHING) for one in QUESTIONS] == before
            assert finder.search("dispute", limit=9, filters=Filters(path="src/more.py")) == []
        fresh = Finder(Shards(dict(zip(many, opened, strict=True))), minilm)
        assert fresh.search("dispute", limit=9, filters=Filters(path="src/more.py"))


def test_of_many_stores_little_is_kept_in_memory(stores: Stores, minilm: Embedder) -> None:
    with gathered(stores, minilm) as opened:
        kept = [store.db.execute("PRAGMA cache_size").fetchone() for store in opened._stores.values()]
    assert kept == [(-256,)] * len(stores)


def test_more_stores_than_may_be_open_are_told_before_any_is_opened(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (105, 105))
    with pytest.raises(StoreError, match="3 stores need 109 open files, and this process may have 105") as told:
        gathered(stores, None).__enter__()
    assert "ulimit -n 109" in told.value.hint


# the command -----------------------------------------------------------------------------------------------------


def treering(*arguments: str, stdin: bytes = b"", code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["search", *arguments], input=stdin)
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


def test_the_command_searches_a_fleet(fleet: Path) -> None:
    found = json.loads(treering("raise the retry limit", "--fleet", str(fleet), "--json").stdout)
    assert found[0]["repository"] == "shop"
    assert found[0]["subject"] == "Raise the retry limit (#41)"
    told = treering("raise the retry limit", "--fleet", str(fleet), "--limit", "1").stdout
    assert "] shop: Raise the retry limit (#41) (" in told
    listed = treering("raise the retry limit", "--fleet", str(fleet), "--limit", "1", "--format", "markdown").stdout
    assert listed.startswith("- ``shop`` ``")


def test_the_command_searches_some_of_a_fleet(fleet: Path) -> None:
    options = ("--fleet", str(fleet), "--json", "--in", "f*", "--in", "bank", "--limit", "100")
    assert {one["repository"] for one in json.loads(treering("dispute", *options).stdout)} == {"bank", "fork"}


def test_the_command_finds_what_is_alike_in_a_fleet(fleet: Path, repos: dict[str, Repo]) -> None:
    commit = repos["fork"].git("rev-parse", "HEAD")
    options = ["similar", commit, "--fleet", str(fleet), "--json", "--limit", "100"]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert {one["repository"] for one in json.loads(done.stdout)} == {"bank", "fork", "shop"}
    some = CliRunner().invoke(main, [*options, "--in", "shop"], catch_exceptions=False)
    assert {one["repository"] for one in json.loads(some.stdout)} == {"shop"}


def test_a_batch_is_answered_by_a_fleet(fleet: Path) -> None:
    lines = b'{"id": 1, "query": "raise the retry limit", "n": 1}\n{"id": 2, "query": ""}\n'
    one, two = treering("--fleet", str(fleet), "--batch", stdin=lines).stdout.splitlines()
    assert [hit["repository"] for hit in json.loads(one)["hits"]] == ["shop"]
    assert json.loads(two) == {"id": 2, "hits": []}


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--fleet", "{fleet}", "--store", "{fleet}"], 2, "--store is of one repository"),
        (["--in", "shop"], 2, "--in chooses among the repositories of a fleet"),
        (["--fleet", "{fleet}/stores"], 4, "there is no store in"),
        (["--fleet", "{fleet}", "--in", "nowhere"], 2, "there is no repository 'nowhere' here"),
        (["--fleet", "{fleet}", "--at", "0000"], 2, "there is no commit"),
    ],
)
def test_what_a_fleet_is_asked_in_vain_is_told(fleet: Path, options: list[str], code: int, told: str) -> None:
    done = treering("dispute", *(one.format(fleet=fleet) for one in options), code=code)
    assert told in done.stderr
