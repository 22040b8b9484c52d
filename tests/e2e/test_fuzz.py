"""Schemathesis over the server's own document: what may be asked, and what may not, never ends in an error of ours.

``make fuzz`` gives it five minutes, and the suite some seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repositories import Repo
from serving import serving
from treering import learning, opening, operations
from treering.report import Reporter

SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))
pytestmark = pytest.mark.timeout(2 * SECONDS + 300)
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method",
)  # fmt: skip
"""All but that whatever fits the document is accepted: a commit or a date must be there, too."""
KNOWN = """
[parameters]
"path.name" = "project"
"body.model" = "project"
"body.max_tokens" = 3
"body.max_completion_tokens" = 3

[[operations]]
include-path = "/v1/embeddings"
parameters = { "body.model" = "all-MiniLM-L6-v2" }

[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 409, 413, 415, 431]
"""
"""What a generator cannot guess; and that a body may be too large to be looked at."""


def fuzzed(url: str, folder: Path, *options: str) -> None:
    (folder / "schemathesis.toml").write_text(KNOWN)
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [program, "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS), "--workers", "1", "--no-color",
         "--max-time", str(SECONDS), "--request-timeout", "60", *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS + 300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "generated" in done.stdout


def test_no_request_ends_in_an_error_of_the_server(indexed_story: Repo, tmp_path: Path) -> None:
    place = opening.place(indexed_story.copied(tmp_path / "project").path)
    with serving({"project": place}) as served:
        fuzzed(served.url, tmp_path, "--exclude-path", "/v1/index", "--exclude-path", "/v1/learn")


@pytest.mark.model
def test_no_request_to_a_model_ends_in_an_error_of_the_server(story: Repo, tmp_path: Path) -> None:
    place = opening.place(
        story.path, None, {"train": {"model": "scratch", "method": "full", "minutes": 0.02, "gpu": False}}
    )
    operations.index(place, Reporter())
    learning.train(place, Reporter())
    with serving({"project": place}) as served:
        fuzzed(served.url, tmp_path, "--include-path-regex", "completions|embeddings|models")
