"""Context packs and answers on a real repository, with a real index, a real local model, and Claude's API."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fake_claude import KEY, FakeClaude, Till, serving
from integration.test_generating import make_model
from repositories import Repo, at_home
from treering import assisting, opening, operations
from treering.assist.ask import Answer
from treering.assist.budget import Budget
from treering.assist.context import ContextPack, counter
from treering.assist.facts import READ_BYTES, facts
from treering.cli.main import main
from treering.errors import BudgetError, ModelError, ServiceError, StoreError, UsageError
from treering.finding import Desk, desk
from treering.lm.generate import Writer
from treering.offered import OFFERS, AskAsked, ContextAsked
from treering.opening import Place
from treering.report import Reporter
from treering.text.paths import matching

QUESTION = "why was the retry limit of the client raised?"
FETCH = "RETRY_LIMIT = {0}\n\n\ndef fetch(url):\n    # give up after {0} attempts\n    return url\n"
SECRET = "ghp_" + "0123456789abcdefABCDEFghijklmnopqrst"


@pytest.fixture(scope="module")
def named() -> dict[str, str]:
    return {}


def raised(repo: Repo) -> str:
    """The commit that raises the limit, made until each of the first seven digits of its hash stands there once: the
    local model below can say no others.
    """
    said = "Raise the retry limit\n\nThe gateway is slow in winter. Three attempts of the client were too few for it."
    while True:
        name = repo.commit(said, client__py=FETCH.format(9), test_client__py="assert 9\n")
        if len(set(name[:7])) == 7:
            return name
        repo.git("reset", "--quiet", "--soft", "HEAD~1")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory, named: dict[str, str]) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("asking")
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, folder / "home")
        repo = Repo(folder / "market")
        named["start"] = repo.commit("Start the energy market", market__py="def settle(order):\n    return order\n")
        named["client"] = repo.commit(
            "Fetch prices with a client", client__py=FETCH.format(3), test_client__py="pass\n"
        )
        for number in range(3):
            repo.commit(f"Settle orders of kind {number}", market__py=f"def settle(order):\n    return {number}\n")
        repo.git("switch", "--quiet", "-c", "limits")
        named["raise"] = raised(repo)
        repo.git("switch", "--quiet", "main")
        repo.commit("Say what it is", README__md="# Market\n")
        repo.git("merge", "--quiet", "--no-ff", "-m", "Merge the limits of the client", "limits")
        named["merge"] = repo.git("rev-parse", "HEAD")
        repo.git("revert", "--no-edit", named["raise"])
        named["revert"] = repo.git("rev-parse", "HEAD")
        repo.commit(
            "Count dropped orders", market__py="def settle(order):\n    return None\n", test_client__py="pass #\n",
            client__py=FETCH.format(5) + f'TOKEN = "{SECRET}"\n',
        )  # fmt: skip
        where = opening.place(repo.path)
        operations.index(where, Reporter())
        yield where


@pytest.fixture
def opened(where: Place) -> Iterator[Desk]:
    with desk(where, Reporter()) as made:
        yield made


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClaude]:
    with serving(FakeClaude()) as served:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("TREERING_ASSIST_CLAUDE_URL", served.url)
        yield served


def at(where: Place, fake: FakeClaude) -> Place:
    """The place with the settings of the environment as it is now."""
    return opening.place(Path(where.source.worktree or ""), where.folder)


def asked(where: Place, fake: FakeClaude, **how: Any) -> Answer:
    with desk(at(where, fake), Reporter()) as made:
        return assisting.ask(made, QUESTION, **{"purse": Till()} | how)


def run(where: Place, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(
        main, [command, "--repo", str(where.source.worktree), "--store", str(where.folder), *rest]
    )  # fmt: skip


# --- context packs


def test_a_pack_tells_the_commit_its_hunks_the_files_now_and_what_became_of_it(
    opened: Desk, named: dict[str, str]
) -> None:
    made = assisting.context(opened, QUESTION)
    assert made.facts[0].commit_hash == named["raise"]
    of = {(fact.kind, fact.commit_hash) for fact in made.facts}
    assert ("hunk", named["raise"]) in of
    assert ("file", opened.tip) in of
    why = {fact.commit_hash: fact.why for fact in made.facts if fact.kind == "related"}
    short = named["raise"][:7]
    assert why[named["revert"]] == f"it undoes {short}"
    assert why[named["merge"]] == f"the merge that brought {short}"
    assert any("test_client.py changed in" in fact.text for fact in made.facts if fact.kind == "related")
    now = next(fact for fact in made.facts if fact.kind == "file" and fact.path == "client.py")
    assert "RETRY_LIMIT = 5" in now.text
    assert now.why.startswith("lines 1-")
    for fact in made.facts:
        assert f'commit="{fact.commit_hash[:12]}"' in made.text


def test_a_file_as_it_is_now_has_no_secrets(opened: Desk) -> None:
    made = assisting.context(opened, "which TOKEN does the client's RETRY_LIMIT fetch have?")
    assert any(fact.kind == "file" and "[redacted:" in fact.text for fact in made.facts)
    assert SECRET not in json.dumps([made.text, [fact.text for fact in made.facts]])


@pytest.mark.parametrize("budget", [260, 300, 400, 700, 1500, 8000])
def test_the_count_is_exact_and_never_above_the_budget(opened: Desk, budget: int) -> None:
    made = assisting.context(opened, QUESTION, budget=budget)
    assert made.tokens == counter("claude", None)(made.text) <= budget
    assert made.facts
    assert sum(fact.tokens for fact in made.facts) < budget
    if budget < 1500:
        assert made.left_out
    if budget == 8000:
        assert made.left_out == ()


def test_a_budget_that_holds_nothing_is_an_error_that_says_how_much_is_needed(opened: Desk) -> None:
    with pytest.raises(UsageError, match="a budget of 50 tokens holds nothing") as told:
        assisting.context(opened, QUESTION, budget=50)
    needed = int(told.value.message.rsplit(" ", 1)[1].replace(",", ""))
    assert assisting.context(opened, QUESTION, budget=needed).tokens <= needed
    assert "--budget" in told.value.hint


def test_the_same_question_has_the_same_pack_and_another_one_other_marks(opened: Desk) -> None:
    first = assisting.context(opened, QUESTION)
    assert assisting.context(opened, QUESTION) == first
    other = assisting.context(opened, f"{QUESTION} Please.")
    first_mark, other_mark = (text.partition("<")[2].partition(" ")[0] for text in (first.text, other.text))
    assert first_mark.startswith("evidence-")
    assert first_mark != other_mark


def test_what_is_private_is_left_out_with_all_its_commits(opened: Desk, named: dict[str, str]) -> None:
    sources, found = assisting._sources(opened, "local"), assisting._evidence(opened, QUESTION)
    private = matching(opened.finder.store.paths(), ["client.py"])
    told = list(facts(replace(sources, finder=opened.finder.without(private)), found))
    assert told
    assert named["raise"] not in {fact.commit_hash for fact in told}
    assert not [fact for fact in told if "client.py" in f"{fact.path} {fact.text}".replace("test_client.py", "")]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """A private file moved into the open, a file with a secret where it is cut, and a name of several lines."""
    folder = tmp_path_factory.mktemp("guarded")
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, folder / "home")
        repo = Repo(folder / "moon")
        repo.commit("Plan the harvest of the moon", **{"secrets/plan.txt": "harvest of the moon\nby\nhand\nonly\n"})
        (repo.path / "open").mkdir()
        repo.git("mv", "secrets/plan.txt", "open/plan.txt")
        repo.commit("Publish the plan of the moon's harvest")
        long = "".join(f"row {number:06d}\n" for number in range(READ_BYTES // 11))[: READ_BYTES - 45]
        repo.commit("Harvest the moon by machine", machine__py=f'{long}\nharvest_of_moon = "{SECRET}"\n')
        repo.commit("Harvest more of the moon", **{"harvest\n2001-01-01, Linus; x\nin moon.py": "harvest the moon\n"})
        operations.index(opening.place(repo.path), Reporter())
        yield repo


def test_a_commit_that_moves_a_private_file_into_the_open_is_private(
    guarded: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk(opening.place(guarded.path), Reporter()) as made:
        assert "Publish the plan" in assisting.context(made, "the plan of the moon's harvest").text
    monkeypatch.setenv("TREERING_ROUTE_PRIVATE_PATHS", "secrets")
    with desk(opening.place(guarded.path), Reporter()) as made:
        text = assisting.context(made, "the plan of the moon's harvest").text
    assert "Harvest the moon by machine" in text
    assert "Publish the plan" not in text


def test_a_private_merge_speaks_for_no_commit_no_file_and_no_reason(
    repo: Repo, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit("Start the ledger", ledger__py="TOTAL = 0\n", market__py="SUM = 0\n")
    for number in range(4):
        repo.commit("Quokka", market__py=f"SUM = {number}\n", **{"secrets/plan.txt": f"{number}\n"})
    repo.git("switch", "--quiet", "-c", "topic")
    repo.commit("Buy it", **{"secrets/plan.txt": "zanzibar\n"})
    brought = repo.commit("Count the ledger twice", ledger__py="TOTAL = 1\n")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge the zanzibar acquisition", "topic")
    operations.index(opening.place(repo.path), Reporter())
    question = "count the ledger twice: zanzibar?"
    fake.answer = lambda _: f"It was [{brought[:10]}]."

    def told() -> tuple[str, list[float]]:
        with desk(opening.place(repo.path), Reporter()) as made:
            assert assisting.ask(made, question, by="claude", purse=Till()).answered_by == "claude"
            detail, foretold = made.discreet.commit(brought), made.discreet.files("quokka")
        return f"{fake.asked[-1]['messages'][0]['content'][0]['text']} {detail}", [one.score for one in foretold]

    text, scores = told()
    assert "text of its merge: zanzibar" in text
    assert "merge_message='Merge the zanzibar acquisition'" in text
    assert max(scores) > 0.1
    monkeypatch.setenv("TREERING_ROUTE_PRIVATE_PATHS", "secrets")
    text, scores = told()
    assert "Count the ledger twice" in text
    assert "zanzibar" not in text
    assert max(scores) < 0.1


def test_half_of_a_secret_is_not_told_where_a_file_is_cut(guarded: Repo) -> None:
    with desk(opening.place(guarded.path), Reporter()) as made:
        told = facts(assisting._sources(made, "claude"), assisting._evidence(made, "harvest_of_moon"))
        texts = [fact.text for fact in told]
    assert any("row 00" in text for text in texts)
    assert not [text for text in texts if SECRET[:12] in text]


def test_the_name_of_a_file_makes_no_lines_of_an_answer(guarded: Repo) -> None:
    with desk(opening.place(guarded.path), Reporter()) as made:
        answer = assisting.ask(made, "harvest more of the moon", by="history").answer
    assert "Harvest more of the moon (2023" in answer
    assert "Linus; x\nin" not in answer


def test_without_a_model_its_tokens_cannot_be_counted(opened: Desk) -> None:
    with pytest.raises(ModelError, match="no trained model"):
        assisting.context(opened, QUESTION, audience="local")


def test_an_empty_question_is_an_error(opened: Desk) -> None:
    for operation in (assisting.context, assisting.ask):
        with pytest.raises(UsageError, match="the question is empty"):
            operation(opened, "  \n")


# --- answers


def test_the_history_answers_in_its_own_words_with_citations(opened: Desk, named: dict[str, str]) -> None:
    pieces: list[str] = []
    made = assisting.ask(opened, QUESTION, by="history", tell=pieces.append)
    assert made.answered_by == "history"
    made_by = f"(2023-11-14, Ada Lovelace; {named['revert'][:7]} says that it reverts it)"
    assert f"Raise the retry limit {made_by} [{named['raise'][:10]}]" in made.answer
    assert "Three attempts of the client were too few for it." in made.answer
    undone = f"(2023-11-14, Ada Lovelace; it undoes {named['raise'][:7]}) [{named['revert'][:10]}]"
    assert f'Revert "Raise the retry limit" {undone}' in made.answer
    assert "  It has: RETRY_LIMIT = 5" in made.answer
    assert "".join(pieces) == made.answer
    assert made.citations[0].commit_hash == named["raise"]
    assert made.citations[0].date == "2023-11-14"
    assert (made.thin, made.unsupported, made.context, made.dollars) == (False, (), None, 0)
    assert assisting.ask(opened, QUESTION, by="history", explain=True).context == assisting.context(opened, QUESTION)


def test_where_the_history_holds_too_little_that_is_the_answer_and_nobody_is_asked(
    where: Place, fake: FakeClaude
) -> None:
    with desk(at(where, fake), Reporter()) as made:
        told = assisting.ask(made, "how are tomato plants watered by the drone?", by="claude", purse=Till())
    assert told.thin
    assert (told.answered_by, told.citations, fake.asked) == ("history", (), [])
    assert "“tomato”" in told.answer
    assert "treering search" in told.answer


def test_claude_answers_from_the_pack_and_every_citation_holds(
    where: Place, fake: FakeClaude, named: dict[str, str]
) -> None:
    cited, elsewhere = named["raise"][:8], "0123456"
    fake.answer = lambda _: f"The gateway is slow [{cited}], they say [{elsewhere}]. It was undone [{named['revert']}]."
    till, pieces = Till(), list[str]()
    made = asked(where, fake, purse=till, explain=True, tell=pieces.append)
    assert made.answered_by == "claude"
    assert (
        made.answer == "".join(pieces) == f"The gateway is slow [{cited}], they say. It was undone [{named['revert']}]."
    )
    assert [one.commit_hash for one in made.citations] == [named["raise"], named["revert"]]
    assert made.unsupported == (elsewhere,)
    assert made.model == "claude-sonnet-5-5"
    assert made.dollars == till.spent > 0
    assert made.input_tokens > 0 < made.output_tokens
    (request,) = fake.asked
    assert made.context is not None
    assert request["messages"][0]["content"][0]["text"] == made.context.text
    assert QUESTION in request["messages"][0]["content"][1]["text"]


def test_a_secret_in_a_question_is_taken_out_before_anyone_is_asked(
    where: Place, fake: FakeClaude, named: dict[str, str]
) -> None:
    fake.answer = lambda _: f"The gateway is slow [{named['raise'][:8]}]."
    with desk(at(where, fake), Reporter()) as opened:
        made = assisting.ask(opened, f"{QUESTION} Our token is {SECRET}", by="claude", purse=Till())
    assert made.answered_by == "claude"
    assert SECRET not in made.question
    assert "redacted" in made.question
    assert fake.asked
    assert SECRET not in json.dumps(fake.asked)


def test_a_commit_that_exists_but_was_not_in_the_context_is_no_support(
    where: Place, fake: FakeClaude, named: dict[str, str]
) -> None:
    fake.answer = lambda _: f"It began there [{named['start'][:8]}] and here [{named['raise'][:8]}]."
    made = asked(where, fake, budget=400)
    assert made.unsupported == (named["start"][:8],)
    assert [one.commit_hash for one in made.citations] == [named["raise"]]


def test_an_answer_that_cites_nothing_is_not_shown_the_history_answers_and_what_it_cost_is_told(
    where: Place, fake: FakeClaude, named: dict[str, str]
) -> None:
    fake.answer = lambda _: "Because of the moon [deadbeef]. \x1b[31mTrust me."
    pieces: list[str] = []
    made = asked(where, fake, by="claude", tell=pieces.append)
    assert made.answered_by == "history"
    assert "without a citation" in made.why
    assert "moon" not in made.answer + "".join(pieces)
    assert named["raise"][:10] in made.answer
    assert made.unsupported == ("deadbeef",)
    assert made.dollars > 0
    assert made.model == "claude-sonnet-5-5"


def test_what_a_model_says_drives_no_terminal(where: Place, fake: FakeClaude, named: dict[str, str]) -> None:
    fake.answer = lambda _: f"So [{named['raise'][:8]}]. \x1b]0;owned\x07\u202egnp.exe"
    pieces: list[str] = []
    made = asked(where, fake, tell=pieces.append)
    assert made.answer == "".join(pieces) == f"So [{named['raise'][:8]}]. \\x1b]0;owned\\x07\\u202egnp.exe"


@pytest.mark.parametrize("failure", ["overloaded", "limit", "broken", "hangup"])
def test_auto_falls_back_to_the_history_and_says_why_where_claude_fails(
    where: Place, fake: FakeClaude, failure: str
) -> None:
    fake.failures = [failure] * 9
    made = asked(where, fake)
    assert made.answered_by == "history"
    assert made.why.startswith("Claude did not answer: Claude")
    with pytest.raises(ServiceError):
        asked(where, fake, by="claude")


def test_auto_asks_nobody_where_the_ceiling_is_reached_or_there_is_no_key(
    where: Place, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ceiling" in asked(where, fake, purse=Till(0.01)).why
    with pytest.raises(BudgetError):
        asked(where, fake, purse=Till(0.01), by="claude")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert "ANTHROPIC_API_KEY is not in the environment" in asked(where, fake).why
    with pytest.raises(ServiceError, match="ANTHROPIC_API_KEY"):
        asked(where, fake, by="claude")
    assert fake.asked == []


def test_auto_asks_nobody_where_nothing_can_be_reserved(where: Place, fake: FakeClaude, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no ledger" * 1000)
    purse = Budget(tmp_path, where.settings.budget)
    assert "ledger.db" in asked(where, fake, purse=purse).why
    with pytest.raises(StoreError):
        asked(where, fake, purse=purse, by="claude")
    assert fake.asked == []


def test_an_answer_that_breaks_off_after_it_was_shown_is_an_error(
    where: Place, fake: FakeClaude, named: dict[str, str]
) -> None:
    fake.failures = ["cut"]
    fake.answer = lambda _: f"[{named['raise'][:7]}]. "
    pieces: list[str] = []
    with pytest.raises(ServiceError, match="broke off"):
        asked(where, fake, tell=pieces.append)
    assert pieces


# --- the local model


def use(where: Place, says: str | None, reads: int) -> Path:
    """Make a real model of bytes the current one of the store: one that says a text after a colon, or at random."""
    models = where.folder / "models"
    shutil.rmtree(models, ignore_errors=True)
    folder = make_model(models / "market" / "0123456789abcdef", says and f":{says}", reads=reads)
    (models / "current").write_text("market/0123456789abcdef")
    return folder


@pytest.fixture
def local(where: Place) -> Iterator[Callable[[str | None, int], Path]]:
    yield partial(use, where)
    shutil.rmtree(where.folder / "models", ignore_errors=True)


def test_a_pack_for_the_local_model_is_counted_by_its_own_tokenizer(
    opened: Desk, local: Callable[[str | None, int], Path]
) -> None:
    local(None, 64)
    made = assisting.context(opened, QUESTION, budget=2500, audience="local")
    assert made.tokens == len(made.text.encode()) <= 2500
    assert made.facts


def test_the_local_model_answers_within_its_window_and_is_held_to_the_same_citations(
    opened: Desk, local: Callable[[str | None, int], Path], named: dict[str, str]
) -> None:
    name = named["raise"][:7]
    folder = local(f" [{name}]", 4096)
    pieces: list[str] = []
    made = assisting.ask(opened, QUESTION, by="local", explain=True, tell=pieces.append)
    assert (made.answered_by, made.answer, made.model) == ("local", f"[{name}]", folder.name)
    assert "no local model was shown to be better" in made.why
    assert "".join(pieces).strip() == made.answer
    assert made.citations[0].commit_hash.startswith(name)
    assert made.context is not None
    assert made.context.tokens < made.input_tokens <= 4096 - made.output_tokens


def test_a_local_model_that_babbles_is_not_shown(opened: Desk, local: Callable[[str | None, int], Path]) -> None:
    local(None, 2048)
    made = assisting.ask(opened, QUESTION, by="local")
    assert (made.answered_by, made.thin) == ("history", False)
    assert "the local model answered without a citation" in made.why
    assert made.output_tokens > 0


def test_a_window_that_holds_no_context_is_an_error_and_a_model_is_loaded_by_whoever_has_it(
    opened: Desk, local: Callable[[str | None, int], Path]
) -> None:
    local(None, 256)
    with pytest.raises(ModelError, match="reads 256 tokens, which hold no context"):
        assisting.ask(opened, QUESTION, by="local")
    loaded: list[Path] = []

    def writer(folder: Path) -> Writer:
        loaded.append(folder)
        return Writer(folder)

    opened.lent = writer
    try:
        with pytest.raises(ModelError):
            assisting.ask(opened, QUESTION, by="local")
    finally:
        opened.lent = None
    assert len(loaded) == 1


# --- the command line, and what is offered


def test_the_commands_print_the_pack_and_the_answer(where: Place, named: dict[str, str]) -> None:
    shown = run(where, "context", QUESTION, "--budget", "500")
    assert shown.exit_code == 0
    assert shown.stdout.count("<evidence-") > 2
    assert "of 500 tokens" in shown.stderr
    pack = json.loads(run(where, "context", QUESTION, "--budget", "500", "--for", "claude", "--json").stdout)
    assert pack["text"] == shown.stdout
    assert list(pack) == list(ContextPack.__struct_fields__)
    answered = run(where, "ask", QUESTION, "--by", "history", "--explain")
    assert answered.exit_code == 0
    assert f"[{named['raise'][:10]}] 2023-11-14 Raise the retry limit\n" in answered.stdout
    assert "<evidence-" in answered.stdout
    assert "by the history: it was asked for" in answered.stderr
    made = json.loads(run(where, "ask", QUESTION, "--by", "history", "--json").stdout)
    assert list(made) == list(Answer.__struct_fields__)
    thin = run(where, "ask", "how are tomato plants watered by the drone?")
    assert thin.exit_code == 0
    assert thin.stdout.startswith("The history of this repository holds too little")
    assert "the evidence is thin" in thin.stderr


def test_the_exit_codes_of_what_cannot_be(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert run(where, "context", QUESTION, "--budget", "50").exit_code == 2
    assert run(where, "context", QUESTION, "--for", "local").exit_code == 6
    assert run(where, "ask", " ").exit_code == 2
    assert run(where, "ask", QUESTION, "--by", "local").exit_code == 6


def test_what_is_offered_answers_as_the_functions_do(opened: Desk) -> None:
    made = OFFERS["context"].answer(opened, ContextAsked(question=QUESTION, budget=600))
    assert made == assisting.context(opened, QUESTION, budget=600)
    told = OFFERS["ask"].answer(opened, AskAsked(question=QUESTION, by="history"))
    assert told == assisting.ask(opened, QUESTION, by="history")


def test_the_repository_does_not_choose_who_is_asked_and_for_what(where: Place) -> None:
    root = Path(where.source.worktree or "")
    for line in ('claude_url = "http://evil.example"', 'claude_model = "dear"', "answer_tokens = 32000"):
        (root / "treering.toml").write_text(f"[assist]\n{line}\n")
        try:
            with pytest.raises(UsageError, match="not the repository's to set"):
                opening.place(root)
        finally:
            (root / "treering.toml").unlink()
