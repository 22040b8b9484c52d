"""The comment on a change and what was discussed, at a GitHub and a GitLab of the loopback."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import httpx2
import pytest

from fake_forge import NAME, TOKEN, FakeForge, Fault, fake_forge, named
from repositories import Repo, at_home
from treering import assisting, finding, forging, opening, operations
from treering.config import ForgeSettings
from treering.errors import NoKey, ServiceError, UsageError
from treering.opening import Place
from treering.operate.comment import MARKER
from treering.operate.forge import Address, Change, address, opened, token_of
from treering.operate.rest import Refused
from treering.report import Reporter

HOSTILE = "x`` @ada #1 <img src=x> [a](http://evil.example) ![](y)\n# heading"
DAY = 1440


def shop(repo: Repo) -> Repo:
    """A history in which the ledger and its test change together, Grace fixes it often, and names are hostile."""
    for number in range(30):
        fixes = number % 3 == 1
        who = (
            ("Grace Hopper", "grace@example.com") if number % 2 else ("Alan Turing", "7+alan@users.noreply.github.com")
        )
        repo.write("ledger.py", f"TOTAL = {number}\n")
        repo.write("test_ledger.py", f"assert {number}\n")
        if number % 5 == 0:
            repo.write("basket.py", f"SIZE = {number}\n")
        repo.git("add", "--all")
        repo.clock += DAY * 60
        said = f"Fix the ledger {number}" if fixes else f"Let the ledger count {number}"
        repo.git("commit", "--quiet", "-m", said if number != 29 else HOSTILE, f"--author={who[0]} <{who[1]}>")
    return repo


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = shop(Repo(tmp_path_factory.mktemp("one") / "shop"))
        operations.index(opening.place(repo.path), Reporter())
        return opening.place(repo.path)


@pytest.fixture(autouse=True)
def _no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the machine's certificates takes longer than all else of a request, and none is needed here."""
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=False))


@pytest.fixture(params=["github", "gitlab"])
def forge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeForge]:
    with fake_forge(request.param) as made:
        made.add_request(
            12, title="Count the ledger twice", files=[("ledger.py", 3, 1), ("new.py", 9, 0)], author="alan"
        )
        monkeypatch.setenv("TREERING_FORGE_API", made.api)
        monkeypatch.setenv("TREERING_FORGE_REPOSITORY", NAME)
        monkeypatch.setenv("TREERING_FORGE_TOKEN", TOKEN)
        yield made


def at(place: Place) -> Place:
    """The same place with the settings of now."""
    return opening.place(place.source.worktree or place.source.git_dir)


def commented(place: Place, forge: FakeForge, dry: bool = False) -> forging.Commented:
    return forging.comment(at(place), Reporter(), 12, pause=forge.pause, dry=dry)


def asked(place: Place, forge: FakeForge, number: int = 12) -> Change:
    """The change alone, without the history."""
    settings = at(place).settings.forge
    with opened(forging.where_at(at(place)), settings.token, settings, forge.pause) as opened_forge:
        return opened_forge.change(number)


def test_a_change_is_told_what_the_history_says_of_it(place: Place, forge: FakeForge) -> None:
    told = commented(place, forge, dry=True)
    assert (told.review.files, told.review.known, told.review.commits) == (2, 1, 30)
    assert [(one.path, one.beside, one.together, one.changed) for one in told.review.absent] == [
        ("test_ledger.py", "ledger.py", 30, 30)
    ]
    assert [(one.name, one.commits) for one in told.review.reviewers] == [("Grace Hopper", 15)]
    # Every third commit is a fix, a day apart: of all older than 14 days but one change of the basket, 15 days before.
    risk = told.review.risk
    assert (risk.changes, risk.mended, risk.usual, risk.level, risk.lines) == (16, 16, round(35 / 36, 4), "usual", 13)
    assert told.review.related
    assert told.posted is None
    assert not forge.comments


def test_who_wrote_the_change_is_no_reviewer_of_it(place: Place, forge: FakeForge) -> None:
    forge.requests[12] |= {"author": "someone", "commits": [("b" * 40, "G. Hopper", "grace@example.com")]}
    assert [one.name for one in commented(place, forge, dry=True).review.reviewers] == ["Alan Turing"]


def test_a_handle_is_told_as_far_as_it_is_known(place: Place, forge: FakeForge) -> None:
    forge.requests[12]["author"] = "someone"
    with finding.desk(at(place), Reporter(), vectors=False) as desk:
        history = desk.finder.history
        forge.logins = dict.fromkeys(history.hashes, "ghopper")
    handles = {one.name: one.handle for one in commented(place, forge, dry=True).review.reviewers}
    assert handles["Alan Turing"] == "alan"
    assert handles["Grace Hopper"] == ("ghopper" if forge.kind == "github" else "")


def test_nothing_of_the_repository_formats_or_calls_anybody(place: Place, forge: FakeForge) -> None:
    forge.requests[12] |= {"title": HOSTILE}
    body = commented(place, forge, dry=True).body
    outside = "".join(part for number, part in enumerate(body.split("``")) if number % 2 == 0)
    assert "@ada" in body
    for sign in ("@", "#1", "<img", "evil.example", "![", "\n# "):
        assert sign not in outside, sign


def test_one_comment_is_made_and_then_updated(place: Place, forge: FakeForge) -> None:
    first = commented(place, forge)
    assert first.posted
    assert first.posted.done == "created"
    again = commented(place, forge)
    assert again.posted
    assert (again.posted.done, again.posted.id) == ("unchanged", first.posted.id)
    forge.requests[12]["files"] = [("basket.py", 1, 1)]
    changed = commented(place, forge)
    assert changed.posted
    assert (changed.posted.done, changed.posted.id) == ("updated", first.posted.id)
    assert [one["body"] for one in forge.comments] == [changed.body]


def test_a_comment_that_copies_our_marker_is_left_alone(place: Place, forge: FakeForge) -> None:
    theirs = f"{MARKER}\nmine now"
    forge.add_comment(12, theirs, "mallory")
    forge.add_comment(12, f"look: {MARKER}", "treering-bot")
    told = commented(place, forge)
    assert told.posted
    assert told.posted.done == "created"
    assert next(one["body"] for one in forge.comments) == theirs
    assert len(forge.comments) == 3


def test_a_token_of_an_app_finds_its_comment_too(place: Place, forge: FakeForge) -> None:
    forge.me = None
    forge.add_comment(12, f"{MARKER}\nmine now", "mallory")
    assert commented(place, forge).posted
    again = commented(place, forge).posted
    assert again
    assert again.done == "unchanged"
    assert len(forge.comments) == 2


def test_our_comment_is_found_on_a_later_page(place: Place, forge: FakeForge) -> None:
    forge.page = 3
    for number in range(10):
        forge.add_comment(12, f"remark {number}", "ada")
    first = commented(place, forge).posted
    again = commented(place, forge).posted
    assert first
    assert again
    assert (again.done, again.id) == ("unchanged", first.id)


def test_two_at_once_leave_one_comment(place: Place, forge: FakeForge) -> None:
    both = threading.Barrier(2, timeout=30)
    forge.before_create = both.wait  # each has seen that there is none
    failed: list[BaseException] = []

    def run() -> None:
        try:
            commented(place, forge)
        except BaseException as error:  # noqa: BLE001  told by the test
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(forge.comments) == 1


@pytest.mark.parametrize(
    "fault", [Fault(502, done=True, on="POST"), Fault(0, done=True, on="POST"), Fault(0, on="POST")]
)
def test_what_may_have_been_created_is_looked_up(fault: Fault, place: Place, forge: FakeForge) -> None:
    forge.faults.append(fault)
    assert commented(place, forge).posted
    assert len(forge.comments) == 1


def test_a_comment_that_was_deleted_meanwhile_is_made_again(place: Place, forge: FakeForge) -> None:
    commented(place, forge)
    forge.requests[12]["files"] = [("basket.py", 1, 1)]
    forge.faults.append(Fault(404, "Not Found", on="PATCH" if forge.kind == "github" else "PUT"))
    told = commented(place, forge)
    assert told.posted
    assert len(forge.comments) == 1


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault(429, "slow down", {"retry-after": "7"}), 7),
        (Fault(403, "You have exceeded a secondary rate limit", {"retry-after": "3"}), 3),
        (Fault(403, "You have exceeded a secondary rate limit"), 60),
    ],
)
def test_a_forge_that_asks_to_wait_is_waited_for(fault: Fault, seconds: float, place: Place, forge: FakeForge) -> None:
    forge.faults.append(fault)
    assert asked(place, forge)
    assert forge.waited == [seconds]


def test_a_wait_beyond_our_patience_is_told(place: Place, forge: FakeForge) -> None:
    forge.faults.append(Fault(403, "API rate limit exceeded", {"x-ratelimit-remaining": "0", "retry-after": "3000"}))
    with pytest.raises(ServiceError, match=r"rate limit of 127.0.0.1 is reached until .* UTC"):
        asked(place, forge)
    assert not forge.waited


def test_a_forge_that_fails_is_asked_again_and_then_told(place: Place, forge: FakeForge) -> None:
    forge.faults.extend([Fault(503), Fault(0)])
    assert asked(place, forge)
    forge.faults.extend([Fault(500, "oops")] * 4)
    with pytest.raises(ServiceError, match="500 on GET"):
        asked(place, forge)


def test_an_expired_token_is_named_and_not_told(
    place: Place, forge: FakeForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREERING_FORGE_TOKEN", "expired-secret-token")
    with pytest.raises(NoKey, match="does not take the token") as error:
        asked(place, forge)
    assert "expired-secret-token" not in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize(("status", "kind"), [(403, Refused), (422, ServiceError), (410, ServiceError)])
def test_a_refusal_names_what_was_refused(
    status: int, kind: type[ServiceError], place: Place, forge: FakeForge
) -> None:
    forge.faults.append(Fault(status, "not\nfor you", on="POST"))
    with pytest.raises(kind, match=f"{status} on POST .*: not for you"):
        commented(place, forge)


def test_a_request_that_is_not_there_is_named(place: Place, forge: FakeForge) -> None:
    with pytest.raises(ServiceError, match=r"404 on GET .*/99"):
        asked(place, forge, 99)


def test_what_answers_no_api_is_told(place: Place, forge: FakeForge, monkeypatch: pytest.MonkeyPatch) -> None:
    forge.requests[12]["base"] = 7 if forge.kind == "github" else {"no": "hash"}
    with pytest.raises(ServiceError, match="answers otherwise than its API should"):
        asked(place, forge)


def test_a_redirect_to_another_address_takes_no_token(place: Place, forge: FakeForge) -> None:
    forge.faults.append(Fault(301, "Moved", {"location": "https://evil.example/x"}))
    with pytest.raises(ServiceError, match="sends us to another address"):
        asked(place, forge)


def test_without_a_token_nothing_is_posted(place: Place, forge: FakeForge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREERING_FORGE_TOKEN")
    with pytest.raises(UsageError, match="no token"):
        commented(place, forge)
    assert commented(place, forge, dry=True).body.startswith(MARKER)
    assert forge.tokens == {""}


def test_the_origin_of_a_repository_decides_no_more_than_a_public_forge() -> None:
    def of(origin: str, **more: str) -> Address:
        return address(ForgeSettings(), more, origin)

    assert of("git@github.com:acme/shop.git").name == "acme/shop"
    assert of("https://gitlab.com/acme/sub/shop.git").api == "https://gitlab.com/api/v4"
    with pytest.raises(UsageError, match="is not known"):
        of("https://evil.example/acme/shop.git")
    with pytest.raises(UsageError, match="is not known"):
        of("ext::sh -c id")
    ci = {"GITHUB_ACTIONS": "true", "GITHUB_API_URL": "https://ghe.example/api/v3", "GITHUB_REPOSITORY": "a/b"}
    assert of("https://evil.example/x/y", **ci) == Address("github", "https://ghe.example/api/v3", "ghe.example", "a/b")
    lab = {"GITLAB_CI": "true", "CI_API_V4_URL": "https://lab.example/api/v4", "CI_PROJECT_PATH": "g/s/p"}
    assert of("", **lab) == Address("gitlab", "https://lab.example/api/v4", "lab.example", "g/s/p")


def test_of_two_forges_each_gets_its_own_token() -> None:
    own = {"GITHUB_TOKEN": "hub", "GITLAB_TOKEN": "lab"}
    ours = ForgeSettings(token="ours")  # noqa: S106
    assert (token_of("github", ours, own), token_of("gitlab", ours, own), token_of("github", ours, {})) == (
        "hub", "lab", "ours"
    )  # fmt: skip
    assert token_of("gitlab", replace(ours, kind="gitlab"), own) == "ours"


def test_ci_tells_which_request_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(UsageError, match="which pull or merge request"):
        forging.request_of(0)
    event = tmp_path_factory.mktemp("event") / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 5}}))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    assert forging.request_of(0) == 5
    monkeypatch.setenv("GITHUB_REF", "refs/pull/6/merge")
    assert forging.request_of(0) == 6
    monkeypatch.setenv("CI_MERGE_REQUEST_IID", "7")
    assert forging.request_of(0) == 7
    assert forging.request_of(8) == 8


def test_what_was_discussed_is_fetched_once_and_without_secrets(
    repo: Repo, forge: FakeForge, make_repo: Callable[..., Repo]
) -> None:
    merged = repo.commit("Count the ledger twice", ledger__py="TOTAL = 1\n")
    repo.commit("Close it\n\nFixes #31", ledger__py="TOTAL = 2\n")
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    secret = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
    forge.add_request(13, title="Twice", body=f"Because once was wrong. {secret}", merged_as=merged, files=[])
    forge.add_issue(31, "It counts once", "It should count twice.", "2026-01-03T00:00:00Z")
    forge.page = 1
    done = forging.pull(where, Reporter(), pause=forge.pause)
    assert (done.changed, done.requests, done.issues, done.since) == (3, 2, 1, "")
    asked = len(forge.asked)
    again = forging.pull(where, Reporter(), pause=forge.pause)
    assert (again.changed, again.since) == (0, "2026-01-03T00:00:00Z")
    since = {"github": "since", "gitlab": "updated_after"}[forge.kind]
    lists = [target for _, target in forge.asked[asked:] if named(target).endswith(("/issues", "/merge_requests"))]
    assert lists
    assert all(f"{since}=2026-01-03" in target for target in lists)
    with finding.desk(where, Reporter(), vectors=False) as desk:
        (request,) = desk.commit(merged).threads
        (issue,) = desk.commit(repo.git("rev-parse", "HEAD")).threads
        said = assisting.context(desk, "why does the ledger count twice", budget=2000).text
    assert (request.kind, request.number, request.state) == ("request", 13, "merged")
    assert "once was wrong" in request.body
    assert "once was wrong" in said
    assert secret not in request.body + said
    assert (issue.kind, issue.number) == ("issue", 31)


def test_what_was_discussed_of_a_private_path_is_not_told(repo: Repo, forge: FakeForge) -> None:
    repo.commit("Start", ledger__py="TOTAL = 0\n")
    repo.git("switch", "--quiet", "-c", "topic")
    shown = repo.commit("Count the ledger twice", ledger__py="TOTAL = 1\n")
    repo.commit("Keep the salaries", salaries__csv="ada,1\n")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request #13 from acme/topic", "topic")
    repo.write("treering.toml", '[route]\nprivate_paths = ["salaries.csv"]\n')
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    forge.add_request(
        13, title="Twice", body="The salaries are in here. Fixes #40", merged_as=repo.git("rev-parse", "HEAD"), files=[]
    )
    forge.add_issue(40, "Whose salary counts", "Everybody can see the payroll.")
    forging.pull(where, Reporter(), pause=forge.pause)
    with finding.desk(where, Reporter(), vectors=False) as desk:
        assert [one.number for one in desk.commit(shown).threads] == [13, 40]
        told = assisting.context(desk, "count the ledger twice", budget=2000).text
    assert "count" in told.lower()
    assert "The salaries" not in told
    assert "payroll" not in told
