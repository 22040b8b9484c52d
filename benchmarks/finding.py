"""How fast commits are found: a warm question, the embedding of texts beside sentence-transformers, and how long until
a history can be searched.

    python benchmarks/finding.py REPO --store STORE [--texts 600] [--questions 400] [--json]

STORE must be indexed with `treering index`. Texts are embedded by both in turns, on the same cores with the same model,
three rounds, the medians compared. The questions are subjects of commits throughout the history, answered by one open
index, embedding included; its vector search is compared with brute force in float64. Last, the repository is indexed
into a store of its own, gone at the end.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING, describe, machine, plain_environment, table

from treering import opening
from treering.modelpack import packed
from treering.search.commits import Finder
from treering.store import Store
from treering.text import document
from treering.vectors.embedder import embed, load_embedder, parts
from treering.vectors.minilm import MAX_TOKENS, NAME

ROUNDS = 3
SEED = 7

Figures = dict[str, float]


def texts_of(store: Store, most: int) -> list[str]:
    """Parts of texts as the index embeds them, of commits throughout the history."""
    ids = store.ids()
    chosen = ids[:: max(1, len(ids) * 2 // most)]
    texts = [text for _, said in store.features(chosen) for _, text in document.texts(said)]
    cut = [part for of in parts(load_embedder(NAME), texts) for part in of]
    return [cut[place] for place in np.random.default_rng(SEED).permutation(len(cut))[:most]]


def embedding(texts: list[str]) -> Figures:
    """Texts a second of ours and of sentence-transformers, and how near their vectors are."""
    import sentence_transformers

    ours = load_embedder(NAME)
    theirs = sentence_transformers.SentenceTransformer(str(packed("minilm.weights").parent), local_files_only=True)
    theirs.max_seq_length = MAX_TOKENS

    def encode() -> npt.NDArray[np.float32]:
        return np.asarray(theirs.encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32)

    embed(ours, texts[:8])
    theirs.encode(texts[:8])
    rates: dict[str, list[float]] = {"treering": [], "sentence-transformers": []}
    made = {}
    for _ in range(ROUNDS):
        ways: dict[str, Callable[[], npt.NDArray[np.float32]]] = {
            "treering": lambda: embed(ours, texts),
            "sentence-transformers": encode,
        }
        for name, way in ways.items():
            started = time.perf_counter()
            made[name] = way()
            rates[name].append(len(texts) / (time.perf_counter() - started))
    cosines = (made["treering"] * made["sentence-transformers"]).sum(axis=1)
    median = {name: float(np.median(found)) for name, found in rates.items()}
    return {
        "texts": len(texts),
        **{f"{name}, texts a second": round(rate, 1) for name, rate in median.items()},
        "ratio": round(median["treering"] / median["sentence-transformers"], 2),
        "smallest cosine": float(cosines.min()),
    }


def warm(store: Store, count: int) -> Figures:
    """Milliseconds of a question, and how often its ten nearest vectors are those of brute force."""
    finder = Finder(store, load_embedder(NAME))
    if finder.dense is None or not finder.dense.count:
        raise SystemExit("the store has no vectors: run `treering index`")
    ids = finder.history.ids[~finder.history.merges]
    chosen = ids[np.linspace(0, len(ids) - 1, count).astype(int)].tolist()
    queries = [store.message(commit_id).partition("\n")[0][:200] or "nothing" for commit_id in chosen]
    for query in queries[:20]:
        finder.search(query, limit=10)
    times = []
    for query in queries:
        started = time.perf_counter()
        finder.search(query, limit=10)
        times.append(1000 * (time.perf_counter() - started))
    exact = np.asarray(finder.dense.rows, np.float64)
    agreed = 0
    for query in queries[:50]:
        vector = embed(finder.dense.embedder, [query])[0]
        brute = exact @ vector.astype(np.float64)
        best = np.sort(np.einsum("ij,j->i", finder.dense.rows, vector))[::-1][:10]
        agreed += bool(np.allclose(best, np.sort(brute)[::-1][:10], atol=1e-6))
    return {
        "commits": len(finder.history),
        "questions": len(queries),
        "p50 ms": round(float(np.percentile(times, 50)), 1),
        "p99 ms": round(float(np.percentile(times, 99)), 1),
        "agrees with brute force": agreed / 50,
    }


def told_silent(folder: Path) -> bool:
    """Whether all words are indexed: then is told, once, which messages say nothing."""
    if not (folder / "treering.db").is_file():
        return False
    with (
        closing(sqlite3.connect(f"{(folder / 'treering.db').as_uri()}?mode=ro", uri=True)) as db,
        suppress(sqlite3.Error),
    ):
        return db.execute("SELECT 1 FROM facts WHERE key = 'silent' AND value = 'told'").fetchone() is not None
    return False


def indexing(repo: Path) -> Figures:
    """Seconds until words answer, and until all vectors are there."""
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        store = Path(folder) / "store"
        started = time.perf_counter()
        process = subprocess.Popen(
            [TREERING, "index", "--repo", repo, "--store", store, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=plain_environment(),
        )  # fmt: skip
        words = 0.0
        while process.poll() is None:
            if not words and told_silent(store):  # words come first
                words = time.perf_counter() - started
            time.sleep(0.05)
        whole = time.perf_counter() - started
        told = json.loads(process.stdout.read() if process.stdout else b"{}")
    if process.returncode:
        raise SystemExit(f"treering index ended with {process.returncode}")
    return {
        "commits": told["commits"],
        "vectors": told["vectors"],
        "seconds until words answer": round(words, 1),
        "seconds until all is there": round(whole, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    with opening.place(chosen.repo, chosen.store).store(existing=True) as store:
        found = {
            "embedding": embedding(texts_of(store, chosen.texts)),
            "a warm question": warm(store, chosen.questions),
        }
    found["indexing"] = indexing(chosen.repo.resolve())
    if chosen.json:
        print(json.dumps({"machine": where, "repo": str(chosen.repo), **found}, indent=2))
        return
    print(f"{chosen.repo}: {describe(where)}\n")
    print(
        table(
            [
                ("what", "figure"),
                *((f"{of}: {name}", str(value)) for of, told in found.items() for name, value in told.items()),
            ]
        )
    )


if __name__ == "__main__":
    main()
