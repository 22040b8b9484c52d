"""The pictures of docs/n8n.md, the workflows in a real n8n: ``python tests/n8n_screenshots.py N8N FOLDER``."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from automation import N8n
from repositories import Repo
from treering import automating, opening
from treering.operate.n8n.workflows import KINDS

LARGEST = 300_000
"""Bytes of a picture."""
PATIENCE = 240_000
"""Milliseconds: the editor is several megabytes of script."""


def editor(browser: Browser, owner: httpx.Client) -> Page:
    """A page of whoever has logged in as the owner."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1600, "height": 800})
    context.add_cookies(
        [{"name": one.name, "value": one.value or "", "url": str(owner.base_url)} for one in owner.cookies.jar]
    )
    context.add_init_script(f"localStorage.setItem('n8n-browserId', '{owner.headers['browser-id']}')")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    return page


def draw(page: Page, address: str, workflow: str, path: Path) -> None:
    page.goto(f"{address}/workflow/{workflow}", wait_until="commit")
    whole = page.get_by_role("button", name="Zoom to Fit")
    expect(whole).to_be_visible(timeout=PATIENCE)
    page.wait_for_timeout(1500)  # nodes are laid out one after the other
    page.keyboard.press("Escape")  # what the editor advises
    whole.click()
    page.mouse.move(5, 400)  # off what shows when it is pointed at
    page.wait_for_timeout(1500)
    page.screenshot(path=path)
    with Image.open(path) as drawn:  # few colours: a third of the size
        drawn.quantize(96).save(path, optimize=True)
    if path.stat().st_size >= LARGEST:
        raise SystemExit(f"{path} is too large")


def main(installed: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        place = opening.place(Repo(home / "market").path)
        automating.export_n8n(place, home / "exported")
        n8n = N8n(Path(installed), home)
        credentials = json.loads((home / "exported" / "credentials.example.json").read_text("utf-8"))
        n8n.take(home / "exported", credentials)
        with n8n.running(), n8n.owner() as owner, sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = editor(browser, owner)
            for number, kind in enumerate(KINDS, start=1):
                written = json.loads((home / "exported" / "workflows" / f"{kind}.json").read_text("utf-8"))
                draw(page, n8n.url, written["id"], Path(folder) / f"n8n-{number}.png")
            browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
