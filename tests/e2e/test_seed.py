"""Every `python3 …` line of the order, run as a user would, on a real repository, and what it writes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from repositories import Repo
from warm import Warm

ROOT = Path(__file__).parents[2]
SCRIPTS = ("scrapers", "tokenizers", "embeddings", "training")
LINES = (ROOT / "tests" / "cases" / "seed_commands.txt").read_text("utf-8").splitlines()


class Desk:
    """A folder with the four scripts in it, as in the order, and a hub cache with tiny models of the real names."""

    def __init__(self, folder: Path, repo: Path, hub: Path, warm: Warm) -> None:
        self.folder, self.repo, self.warm = folder, repo, warm
        self.environment = os.environ | {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
        for name in SCRIPTS:
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.json*", ".treering", "__pycache__")
            )

    def run(self, line: str, *, code: int = 0, warm: bool = False) -> "subprocess.CompletedProcess[str]":
        """What a line of the order does; ``warm``, in a process that has torch loaded."""
        line = line.replace("/Users/ianreitsma/projects/the-block", str(self.repo)).replace(
            "--repo ...", f"--repo {self.repo}"
        )
        arguments = shlex.split(line)
        assert arguments[0] == "python3"
        if warm:
            done = self.warm.run(arguments[1:], self.folder, **self.environment)
        else:
            done = subprocess.run(
                [sys.executable, *arguments[1:]],
                cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
        assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text("utf-8"))

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text("utf-8").splitlines()]


def _cached(hub: Path, name: str, model: Any, tokenizer: Any) -> None:
    """Put a model where Hugging Face's cache would have it."""
    base = hub / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = base / "snapshots" / ("0" * 40)
    model.save_pretrained(snapshot)
    tokenizer.save(snapshot)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("0" * 40)


@pytest.fixture(scope="module")
def models(hub: Path) -> Path:
    """Tiny models with the vocabularies of the real ones: gpt2's, and another for opt."""
    from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

    from treering.tokens.tokenizer import load_tokenizer

    gpt2 = load_tokenizer("gpt2")
    for name in ("gpt2", "distilgpt2"):
        config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50257)
        _cached(hub, name, GPT2LMHeadModel(config), gpt2)
    opt = load_tokenizer("gpt2", ["<one-more-token>"])
    config = OPTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, word_embed_proj_dim=16, vocab_size=50272
    )
    _cached(hub, "facebook/opt-350m", OPTForCausalLM(config), opt)
    return hub


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, told_story: Repo, models: Path, warm: Warm) -> Desk:
    repo = told_story.copied(tmp_path_factory.mktemp("user") / "the-block")
    return Desk(tmp_path_factory.mktemp("desk"), repo.path, models, warm)


def line(start: str, *words: str) -> str:
    """The first line of the order that begins so and has these words."""
    return next(line for line in LINES if line.startswith(f"python3 {start}") and all(word in line for word in words))


def test_step_1_scrapes_the_repository_in_the_seeds_format(desk: Desk) -> None:
    printed = desk.run(line("scrapers/git_scraper.py", "--output-json")).stdout
    assert [part.split(":")[0] for part in printed.splitlines()[:5]] == [
        "Total commits", "Total merges", "Merge percentage", "Total insertions", "Total deletions",
    ]  # fmt: skip
    for label in ("Unique authors", "Unique branches", "Time span", "Commits per day"):
        assert f"\n{label}: " in printed
    records = desk.lines("data/git_history.jsonl")
    assert records == desk.json("data/git_history.json")
    assert list(records[0])[:16] == [
        "commit_hash", "author_name", "author_email", "message_subject", "message_body", "branch", "is_merge",
        "files_added", "files_modified", "files_deleted", "insertions", "deletions", "diff_summary", "stats",
        "commit_timestamp", "parent_hashes",
    ]  # fmt: skip
    assert records[0]["stats"] == {
        "README.md": {"insertions": 1, "deletions": 0},
        "src/market.py": {"insertions": 2, "deletions": 0},
    }
    assert records[0]["diff_summary"] == "Files changed: 2, Insertions: +3, Deletions: -0"
    assert sum(record["is_merge"] for record in records) == 1
    assert (desk.folder / "pipeline.log").read_text()


def test_step_2_packs_tokens_whose_ids_the_vocabulary_holds(desk: Desk) -> None:
    printed = desk.run(line("tokenizers/git_tokenizer.py", "--strategy semantic")).stdout
    assert "Total tokens: " in printed
    file = desk.json("data/token_sequences.json")
    assert list(file)[:4] == ["token_sequences", "vocab_size", "num_sequences", "total_tokens"]
    assert file["num_sequences"] == len(file["token_sequences"])
    assert file["total_tokens"] == sum(map(len, file["token_sequences"]))
    assert file["vocab_size"] > max(max(sequence) for sequence in file["token_sequences"]) >= 50257
    commits = desk.lines("data/tokenized_commits.jsonl")
    assert file["total_tokens"] == sum(commit["num_tokens"] + 1 for commit in commits)
    assert all(len(sequence) == 1024 for sequence in file["token_sequences"][:-1])


@pytest.mark.parametrize("strategy", ["hierarchical", "diff-aware"])
def test_the_other_strategies_tokenise_too(desk: Desk, strategy: str) -> None:
    outputs = f"--sequences data/{strategy}.json --output data/{strategy}.jsonl"
    desk.run(f"python3 tokenizers/git_tokenizer.py --strategy {strategy} {outputs}")
    assert desk.json(f"data/{strategy}.json")["strategy"] == strategy


def test_step_3_writes_points_that_qdrant_takes(desk: Desk) -> None:
    desk.run(line("embeddings/embedding_generator.py", "--qdrant-output"))
    points = desk.json("embeddings/qdrant_points.json")
    assert {len(point["vector"]) for point in points} == {384}
    assert len({uuid.UUID(point["id"]) for point in points}) == len(points)
    assert list(points[0]["payload"])[:6] == [
        "commit_hash", "author", "message", "files_modified", "insertions", "timestamp",
    ]  # fmt: skip
    commits = desk.lines("embeddings/commits.jsonl")
    assert {len(commit["embedding"]) for commit in commits} == {384}
    assert {commit["commit_hash"] for commit in commits} == {point["payload"]["commit_hash"] for point in points}


def test_step_3_searches_and_prints_the_seeds_block(desk: Desk) -> None:
    printed = desk.run(line("embeddings/embedding_generator.py", "--search-query")).stdout.splitlines()
    assert printed[0] == "Searching for: energy market settlement"
    assert printed[2] == "Top 5 similar commits:"
    assert printed[3].startswith("  [")
    assert "market" in printed[3]
    assert printed[4] == "           Author: Ada Lovelace"


def test_step_4_trains_and_says_how_well_on_commits_it_never_saw(desk: Desk) -> None:
    done = desk.run(line("training/model_trainer.py", "--model-name gpt2", "--evaluate"))
    assert "Epoch 3/3:  [████████████████████] 100%  Loss: " in done.stderr
    for label in ("Evaluation Results:", "  perplexity: ", "  total_loss: ", "  total_tokens: "):
        assert label in done.stdout
    assert done.stdout.rstrip().endswith("Model saved to: models/the-block-git-model-final")
    files = {path.name for path in (desk.folder / "models" / "the-block-git-model-final").iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_report.json",
    } <= files
    report = desk.json("models/the-block-git-model-final/training_report.json")
    assert report["holdout"]["total_tokens"] < desk.json("data/token_sequences.json")["total_tokens"] / 2


def test_the_seeds_example_loads_the_model_and_samples_from_it(desk: Desk) -> None:
    example = """
from transformers import AutoTokenizer, AutoModelForCausalLM

model_path = "models/the-block-git-model-final"
tokenizer = AutoTokenizer.from_pretrained(model_path)
model = AutoModelForCausalLM.from_pretrained(model_path)

inputs = tokenizer("<COMMIT> a1b2c3d <FILE_MOD>", return_tensors="pt")
outputs = model.generate(**inputs, max_length=64)
print(tokenizer.decode(outputs[0]))
"""
    (desk.folder / "example.py").write_text(example)
    done = desk.run("python3 example.py", warm=True)
    assert done.stdout.startswith("<COMMIT> a1b2c3d <FILE_MOD>")


@pytest.mark.parametrize(
    "line",
    [line for line in LINES if "training/" in line and "opt-350m" not in line and "--output-dir" not in line],
)
def test_the_seeds_shorter_lines_of_training_work(desk: Desk, line: str) -> None:
    assert "Model saved to: " in desk.run(line, warm=True).stdout


@pytest.mark.parametrize("training", [line for line in LINES if "opt-350m" in line])
def test_a_model_of_another_vocabulary_is_refused_and_the_hint_mends_it(desk: Desk, training: str) -> None:
    refused = desk.run(training, code=5, warm=True)
    assert "facebook/opt-350m" in refused.stderr
    assert "hint: tokenise again with --model facebook/opt-350m" in refused.stderr
    desk.run("python3 tokenizers/git_tokenizer.py --model facebook/opt-350m")
    assert "Model saved to: " in desk.run(training, warm=True).stdout
    desk.run(line("tokenizers/git_tokenizer.py", "--strategy semantic"))  # as it was


@pytest.mark.parametrize(
    "line",
    [line for line in LINES if "training/" not in line and "--output" not in line and "--search" not in line],
)
def test_the_seeds_shorter_lines_work(desk: Desk, line: str) -> None:
    assert desk.run(line).stdout


def test_a_model_that_is_nowhere_fails_in_seconds_with_the_alternatives(desk: Desk) -> None:
    refused = desk.run("python3 training/model_trainer.py --model-name facebook/opt-1.3b", code=6, warm=True)
    assert "`facebook/opt-1.3b` is not on this machine" in refused.stderr
    assert "smollm2-135m" in refused.stderr


def test_a_torn_line_is_named_and_leaves_what_was_there(desk: Desk) -> None:
    before = (desk.folder / "data/token_sequences.json").read_bytes()
    whole = (desk.folder / "data/git_history.jsonl").read_bytes()
    (desk.folder / "data/torn.jsonl").write_bytes(whole[:-40])
    torn = desk.run("python3 tokenizers/git_tokenizer.py --input data/torn.jsonl", code=5)
    last = len(whole.splitlines())
    assert f"torn.jsonl:{last} " in torn.stderr
    (desk.folder / "data/empty.jsonl").write_bytes(b"")
    assert "is empty" in desk.run("python3 embeddings/embedding_generator.py --input data/empty.jsonl", code=5).stderr
    assert (desk.folder / "data/token_sequences.json").read_bytes() == before


def test_the_script_folders_do_not_hide_the_libraries_of_their_names() -> None:
    assert not list(ROOT.glob("tokenizers/__init__.py"))
    subprocess.run([sys.executable, "-c", "from tokenizers import Tokenizer"], cwd=ROOT, check=True)
