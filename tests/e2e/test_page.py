"""The page in a real browser: Debian's Chromium, headless, on a real repository."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

import fake_claude
from fake_claude import FakeClaude
from repositories import Repo, at_home, tell_story
from serving import Served, serving
from treering import finding, opening, operations
from treering.opening import Place
from treering.report import Reporter

pytestmark = pytest.mark.browser

HTML = "<img src=x onerror=alert(1)><script>alert(2)</script>"
BIDI = "access\u202egnitnuocca\u2066"
ANSI = "\x1b[31mred\x1b[0m\x9b5n"
TOKEN = "a-token-of-this-test"
VIEWS = ("#/search", "#/search?q=oracle", "#/files?task=oracle+rule", "#/ask", "#/overview")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: no browser tried the page")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


def hostile(repo: Repo) -> str:
    """A commit that tries: markup, scripts, escapes and characters that reorder text, in all that it can name."""
    repo.write(f"src/{HTML.replace('/', '∕')}.py", f"oracle = '{HTML}'\n# {BIDI} {ANSI}\n" + "x" * 100_000 + "\n")
    repo.write("__proto__", "constructor\n")
    repo.git("add", "--all")
    repo.git(
        "-c", "i18n.commitEncoding=utf-8", "commit", "--quiet", "--cleanup=verbatim", "-F", "-",
        stdin=f"Hostile {HTML} {BIDI} {ANSI}\n\njavascript:alert(3) {HTML}\n{BIDI}\n".encode(),
    )  # fmt: skip
    repo.git("branch", "a<b>&amp;")
    return repo.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = tell_story(Repo(tmp_path_factory.mktemp("user") / "project"))
        hostile(repo)
        other = Repo(tmp_path_factory.mktemp("user") / "other")
        other.commit("Paint the fence", fence__py="def paint():\n    pass\n")
        found = {}
        for one in (repo, other):
            where = opening.place(one.path)
            operations.index(where, Reporter())
            found[one.path.name] = where
        yield found


@pytest.fixture(scope="module")
def server(places: dict[str, Place]) -> Iterator[Served]:
    with serving({"project": places["project"]}) as running:
        yield running


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, server: Served) -> Iterator[Visit]:
    """Open the page. Whatever runs, fails, is refused or is asked for elsewhere while it is open is collected, and must
    be nothing.
    """
    wrong: list[str] = []
    with ExitStack() as stack:

        def opened(address: str = "", *, at: str = "", width: int = 1200, dark: bool = False) -> Page:
            base = at or server.url
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
            )
            stack.callback(context.close)
            context.set_default_timeout(10_000)
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(f"error: {error}"))

            def asked(dialog: Dialog) -> None:
                wrong.append(f"dialog: {dialog.message}")
                dialog.dismiss()

            def said(message: ConsoleMessage) -> None:
                # The browser itself notes every answer that is no success; what the page makes of it is seen.
                if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
                    wrong.append(f"console: {message.text}")

            def sent(request: Request) -> None:
                if not request.url.startswith((base, "data:")):
                    wrong.append(f"request: {request.url}")

            page.on("dialog", asked)
            page.on("console", said)
            page.on("request", sent)
            page.goto(f"{base}/{address}")
            return page

        yield opened
    assert not wrong


def field(page: Page) -> Locator:
    return page.get_by_role("searchbox")


def hits(page: Page) -> Locator:
    return page.locator(".hits .hit")


def test_typing_finds_commits_with_why_and_the_hunk_and_a_filter_narrows_them(visit: Visit) -> None:
    page = visit()
    expect(field(page)).to_be_focused()
    page.keyboard.type("oracle rule")
    first = hits(page).first
    expect(first.locator("mark").first).to_be_visible()
    expect(first.locator(".why")).to_contain_text("oracle")
    expect(first.locator(".patch figcaption")).to_have_text("src/oracle.py")
    expect(first.locator(".line.added").first).to_contain_text("def oracle_rule")
    assert "q=oracle+rule" in page.url  # it can be kept and sent
    page.get_by_label("Path").fill("src/ledger.py")
    expect(hits(page).first.locator(".patch figcaption")).to_have_text("src/ledger.py")
    expect(page.get_by_role("button", name="Remove the filter path")).to_be_visible()
    assert "path=src%2Fledger.py" in page.url
    page.reload()  # what is in the address is all
    expect(hits(page).first.locator(".patch figcaption")).to_have_text("src/ledger.py")
    page.get_by_role("button", name="Remove the filter path").click()
    page.get_by_label("Merges too").check()
    field(page).fill("gateway")
    expect(page.get_by_role("link", name="Merge feature/bridge")).to_be_visible()


def test_a_hit_opens_its_commit_and_going_back_stands_where_it_was_left(visit: Visit) -> None:
    page = visit("#/search?q=bridge+receipts+gateway")
    link = page.get_by_role("link", name="Bridge receipts over the gateway")
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Bridge receipts over the gateway")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.locator(".patch .line.added .code").first).to_have_text("class GatewayBridge:")
    expect(page.locator(".facts")).to_contain_text("Merge feature/bridge")
    expect(page.locator(".alike .hit").first).to_be_visible()
    page.go_back()
    expect(link).to_be_focused()
    page.get_by_role("link", name="its merge").first.click()
    expect(page.locator(".body")).to_have_text("It brings the gateway.")


def test_the_keyboard_alone_reaches_everything(visit: Visit) -> None:
    page = visit("#/overview")
    expect(page.get_by_role("heading", name="Hot spots")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("s")
    expect(field(page)).to_be_focused()
    page.keyboard.type("settlement rule")
    expect(hits(page).first.locator(".why")).to_contain_text("settlement")
    page.keyboard.press("ArrowDown")
    links = page.locator(".hit h2 a")
    expect(links.nth(0)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(links.nth(1)).to_be_focused()
    assert links.nth(1).evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    expect(field(page)).to_be_focused()


def test_an_answer_comes_in_pieces_and_its_citations_open(
    visit: Visit, places: dict[str, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = places["project"].source.worktree
    assert repo
    said = "It was brought by the commit on bridge receipts [{}]. Before it there was none, as far as is told here."
    with fake_claude.serving(FakeClaude(pause=0.2)) as fake:
        monkeypatch.setenv("ANTHROPIC_API_KEY", fake_claude.KEY)
        monkeypatch.setenv("TREERING_ASSIST_CLAUDE_URL", fake.url)
        place = opening.place(repo)
        with finding.desk(place, Reporter()) as desk:
            said = said.format(desk.search("gateway")[0].commit_hash[:10])
        fake.answer = lambda _: said
        with serving({"project": place}) as server:
            page = visit("#/ask", at=server.url)
            page.get_by_label("Question").fill("What brought the gateway?")
            page.keyboard.press("Enter")
            coming = page.locator(".answer .text[aria-busy]")
            expect(coming).to_contain_text("It was", timeout=30_000)  # the first loads what speaks to Claude
            before = len(coming.inner_text())
            whole = page.locator(".answer .text:not([aria-busy])")
            expect(whole).to_contain_text("told here", timeout=30_000)
            assert len(whole.inner_text()) > before
            expect(page.locator(".answer .hint")).to_contain_text("Claude")
            page.locator(".answer .text a").first.click()
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            page.go_back()
            expect(page.locator(".answer")).to_have_count(1)  # it is not asked, and paid, again
            assert len(fake.asked) == 1
            page.goto(f"{server.url}/#/overview")
            expect(page.get_by_text("left today")).to_be_visible()


def test_the_history_answers_where_claude_cannot_be_asked(visit: Visit) -> None:
    page = visit("#/ask")
    page.get_by_label("Question").fill("What brought the gateway?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .text:not([aria-busy])")).to_contain_text("Bridge receipts")
    expect(page.locator(".answer .hint")).to_contain_text("Answered by the history alone")


def test_an_answer_on_thin_evidence_says_so(visit: Visit) -> None:
    page = visit("#/ask")
    thin = {
        "question": "q", "answer": "The history tells too little.", "answered_by": "history", "why": "", "thin": True,
        "citations": [], "unsupported": ["It was <b>Ada</b>."], "model": "", "input_tokens": 0, "output_tokens": 0,
        "dollars": 0, "context": None,
    }  # fmt: skip
    page.route(
        "**/v1/ask", lambda route: route.fulfill(body=f"data: {json.dumps({'answer': thin})}\n\ndata: [DONE]\n\n")
    )
    page.get_by_label("Question").fill("q")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".answer.thin .notice").first).to_contain_text("The evidence is thin")
    expect(page.locator(".answer .notice li")).to_have_text("It was <b>Ada</b>.")


def test_an_answer_that_is_cut_off_says_so_and_is_not_asked_again_by_itself(visit: Visit) -> None:
    page = visit("#/ask")
    asked: list[Route] = []

    def cut(route: Route) -> None:
        asked.append(route)
        route.fulfill(body='data: {"delta": "Half of "}\n\n')

    page.route("**/v1/ask", cut)
    page.get_by_label("Question").fill("q")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The answer was cut off")
    expect(page.locator(".answer .text")).to_have_text("Half of ")
    page.wait_for_timeout(4000)
    assert len(asked) == 1  # it may cost money
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(1)
    assert len(asked) == 2


def test_files_are_predicted_and_what_is_known_is_given(visit: Visit) -> None:
    page = visit("#/files?task=oracle+rule")
    expect(page.locator(".predicted .path").first).to_have_text("src/oracle.py")
    page.get_by_role("button", name="src/oracle.py is part of it").click()
    expect(page.locator(".chips")).to_contain_text("src/oracle.py")
    expect(page.locator(".predicted .path").first).not_to_have_text("src/oracle.py")
    field(page).fill("")
    page.get_by_role("button", name="What may come next?").click()
    expect(page.get_by_role("heading", name="The next commits may touch")).to_be_visible()


def test_a_late_answer_to_an_older_question_is_dropped(visit: Visit) -> None:
    page = visit()
    held: list[Route] = []

    def slow(route: Route) -> None:
        if "dispute" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/search", slow)
    with page.expect_request("**/v1/search"):
        field(page).fill("dispute")
    field(page).fill("validator rule")
    expect(hits(page).first.locator(".why")).to_contain_text("validator")
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    expect(hits(page).first.locator(".why")).to_contain_text("validator")


def test_a_server_that_is_stopped_is_told_and_its_return_noticed(visit: Visit, places: dict[str, Place]) -> None:
    one = {"project": places["project"]}
    with serving(one) as first:
        page = visit("#/search?q=oracle", at=first.url)
        expect(hits(page).first).to_be_visible()
    field(page).fill("ledger rule")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.get_by_role("alert")).to_contain_text("treering serve")
    with serving(one, port=int(first.url.rpartition(":")[2])):
        expect(hits(page).first.locator(".why")).to_contain_text("ledger")


FAILURES = [
    (503, "the model is busy with other requests", "wait a moment", "Busy just now"),
    (404, "there is no index in .treering", "run `treering run`, or `treering index`, first", "there is no index"),
    (500, "<b>torn</b>", "", "<b>torn</b>"),
]


@pytest.mark.parametrize(("status", "message", "hint", "shown"), FAILURES)
def test_a_failure_says_the_way_out(visit: Visit, status: int, message: str, hint: str, shown: str) -> None:
    page = visit()
    told = json.dumps({"error": {"message": message, "hint": hint, "code": ""}})
    page.route("**/v1/search", lambda route: route.fulfill(status=status, body=told, content_type="application/json"))
    field(page).fill("oracle")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(shown)
    expect(alert).to_contain_text(hint.replace("`", ""))
    page.unroute("**/v1/search")
    alert.get_by_role("button", name="Try again").click()
    expect(hits(page).first).to_be_visible()


def test_what_is_nowhere_is_told_and_filters_can_be_dropped(visit: Visit) -> None:
    page = visit("#/search?q=oracle&author=nobody")
    expect(page.get_by_role("heading", name="Nothing was found")).to_be_visible()
    page.get_by_role("button", name="Search without them").click()
    expect(hits(page).first).to_be_visible()
    page.get_by_label("Since").fill("no day at all")
    expect(page.get_by_role("alert")).to_contain_text("no day at all")


def test_a_token_is_asked_for_and_kept_for_the_tab(visit: Visit, places: dict[str, Place]) -> None:
    with serving({"project": places["project"]}, token=TOKEN) as guarded:
        page = visit("#/search?q=oracle", at=guarded.url)
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(hits(page).first).to_be_visible()
        expect(page.locator("#state")).to_contain_text("commits")
        page.reload()
        expect(hits(page).first).to_be_visible()


def test_one_of_several_repositories_is_chosen(visit: Visit, places: dict[str, Place]) -> None:
    with serving(places) as both:
        page = visit("#/search", at=both.url)
        expect(page.get_by_role("heading", level=2)).to_contain_text("project")
        page.get_by_label("Repository").select_option("other")
        expect(page.get_by_role("heading", level=2)).to_contain_text("other")
        field(page).fill("fence")
        expect(page.get_by_role("link", name="Paint the fence")).to_be_visible()
        page.get_by_role("link", name="Paint the fence").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Paint the fence")
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Paint the fence")
        expect(page.get_by_label("Repository")).to_have_value("other")


def test_the_charts_show_the_history_in_figures(visit: Visit) -> None:
    page = visit("#/overview")
    expect(page.locator(".overview .states")).to_contain_text("treering run")
    for name in ("Activity by hour", "Themes over time", "Hot spots", "Training", "Search quality", "Spend"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("in all"))).to_be_visible()
    assert page.locator(".chart rect.bar").count() > 3
    page.locator(".chart", has_text="Hot spots").get_by_text("As a table").click()
    expect(page.get_by_role("rowheader", name="src/ledger.py")).to_be_visible()


def test_the_monitor_shows_how_figures_went_and_what_changed(visit: Visit, places: dict[str, Place]) -> None:
    with places["project"].store() as store:
        for day, p99 in enumerate([*(0.02 + 0.001 * (one % 3) for one in range(20)), *([0.4] * 5)]):
            store.log_run("serve", 1_700_000_000 + 86400 * day, {"searches": 100, "p50": 0.01, "p99": p99})
        lesson = {
            "model": "0123456789",
            "current": True,
            "verdict": HTML,
            "bits_per_byte": {"base": 1.5, "tuned": 0.75},
        }
        store.log_run("train", 1_700_000_000, lesson)
    page = visit("#/overview")
    expect(page.get_by_role("heading", name="Monitor")).to_be_visible()
    worse = page.locator(".chart.worse")
    expect(worse).to_have_count(1)
    expect(worse).to_contain_text("A search, the slowest of 100")
    expect(worse).to_contain_text("got worse")
    expect(worse.get_by_role("img")).to_have_attribute("aria-label", re.compile("25 runs, got worse"))
    assert worse.locator("circle.dot").count() == 25
    expect(page.locator(".chart.steady")).to_contain_text("A search, the median")
    expect(page.locator(".lessons")).to_contain_text("came into use")


@pytest.mark.parametrize("width", [360, 320])
def test_nothing_is_wider_than_a_phone(visit: Visit, places: dict[str, Place], width: int) -> None:
    page = visit(width=width)
    newest = Repo(places["project"].source.worktree or Path()).git("rev-parse", "HEAD")
    for view in (*VIEWS, f"#/commit/{newest}"):
        page.goto(f"{page.url.partition('#')[0]}{view}")
        expect(page.locator(".loading")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    page.goto(f"{page.url.partition('#')[0]}#/search?q=oracle")
    page.get_by_role("button", name="Filters").click()
    expect(page.get_by_label("Author")).to_be_visible()


def test_dark_is_the_systems_choice_until_it_is_ones_own(visit: Visit) -> None:
    page = visit(dark=True)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)
    assert max(int(part) for part in re.findall(r"\d+", dark)[:3]) < 60
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) != dark
    page.reload()
    assert page.evaluate(background) != dark
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "false")


def test_a_hostile_commit_runs_nothing_and_hides_nothing(visit: Visit, places: dict[str, Place]) -> None:
    """The fixture sees to it that nothing ran, was refused, or was asked for elsewhere."""
    page = visit("#/search?q=hostile+onerror")
    link = page.locator(".hit h2 a").first
    expect(link).to_contain_text(f"Hostile {HTML}")
    expect(link.locator(".control").first).to_have_text("\\u202e")
    expect(link).to_contain_text("\\x1b[31mred")
    link.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(HTML)
    expect(page.locator(".body")).to_contain_text(f"javascript:alert(3) {HTML}")
    expect(page.locator("td.path").first).to_be_visible()
    assert {"__proto__", f"src/{HTML.replace('/', '∕')}.py"} <= set(page.locator("td.path bdi").all_inner_texts())
    expect(page.locator(".facts")).to_contain_text("a<b>&amp;")
    expect(page.locator(".patch").nth(1)).to_contain_text("onerror")
    assert page.locator("main img, main script, main iframe, main b b").count() == 0
    text = page.locator("body").inner_text()
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x1b\x9b]", text + page.title())
    page.goto(f"{page.url.partition('#')[0]}#/overview")
    expect(page.get_by_role("heading", name="Hot spots")).to_be_visible()
    page.goto(f"{page.url.partition('#')[0]}#/search?q={HTML}&author={HTML}")
    expect(page.get_by_role("heading", name="Nothing was found")).to_be_visible()
    page.goto(f"{page.url.partition('#')[0]}#/<img src=x onerror=alert(1)>")
    expect(page.get_by_role("heading", name="There is no such view")).to_be_visible()
    page.goto(f"{page.url.partition('#')[0]}#/commit/%E0%A4%A")
    expect(page.get_by_role("alert")).to_contain_text("there is no commit")
