"""The pictures of docs/n8n.md, the workflows in a real n8n: ``python tests/n8n_screenshots.py N8N FOLDER``."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from automation import OWNER, N8n
from repositories import Repo
from treering import automating, opening
from treering.operate.n8n.workflows import KINDS

LARGEST = 300_000
"""Bytes of a picture."""


def log_in(page: Page, address: str) -> None:
    page.goto(f"{address}/signin")
    page.locator("input[name=emailOrLdapLoginId], input[type=email]").first.fill(OWNER["email"])
    page.locator("input[type=password]").fill(OWNER["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "signin" not in url)


def draw(page: Page, address: str, workflow: str, path: Path) -> None:
    page.goto(f"{address}/workflow/{workflow}")
    expect(page.get_by_test_id("canvas-node").first).to_be_visible(timeout=120_000)
    page.wait_for_timeout(1500)  # nodes are laid out one after the other
    page.keyboard.press("1")  # all of it, as large as it fits
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
        with n8n.running(), n8n.owner(), sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_context(color_scheme="light", viewport={"width": 1600, "height": 800}).new_page()
            log_in(page, n8n.url)
            for number, kind in enumerate(KINDS, start=1):
                written = json.loads((home / "exported" / "workflows" / f"{kind}.json").read_text("utf-8"))
                draw(page, n8n.url, written["id"], Path(folder) / f"n8n-{number}.png")
            browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
