"""The pictures of docs/page.md, of an indexed repository: ``python tests/screenshots.py REPOSITORY FOLDER [STORE]``."""

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from serving import serving
from treering import opening

QUERY = "checkpoint that survives a kill"


def draw(page: Page, address: str, folder: Path) -> None:
    def taken(name: str, width: int, height: int) -> None:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(400)  # the charts are drawn for the width that is there
        page.screenshot(path=folder / f"page-{name}.png")

    page.goto(f"{address}/#/search")
    page.get_by_role("searchbox").fill(QUERY)
    first = page.locator(".hit h2 a").first
    expect(first).to_be_visible()
    taken("search", 1180, 780)
    taken("phone", 360, 720)
    first.click()
    expect(page.locator(".alike .hit").first).to_be_visible()
    taken("commit", 1180, 780)
    page.goto(f"{address}/#/overview")
    expect(page.get_by_role("heading", name="Spend")).to_be_visible()
    page.set_viewport_size({"width": 1180, "height": 800})
    page.wait_for_timeout(400)
    page.screenshot(path=folder / "page-charts.png", full_page=True)


def main(repository: str, folder: str, store: str | None = None) -> None:
    where = opening.place(Path(repository), Path(store) if store else None)
    with serving({where.source.name: where}) as server, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(color_scheme="light").new_page()
        draw(page, server.url, Path(folder))
        browser.close()
    for path in Path(folder).glob("page-*.png"):  # few colours: a third of the size
        with Image.open(path) as drawn:
            drawn.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
