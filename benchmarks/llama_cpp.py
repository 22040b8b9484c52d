"""What a model loses on its way into a GGUF: transformers on the model's folder beside a real llama.cpp on its exports.

Takes the repository's current model (`treering train` first), exports it as f32, f16 and q8_0, and compares, on commits
that it never saw: bits per byte; how often the likeliest next token is the same; the ids of both tokenizers over texts
of the whole history; tokens decoded per CPU-second on one thread, the prompt's own time not counted; sizes, and the CPU
seconds of the export. llama.cpp is node-llama-cpp's; `make llama-test` installs it into .venv/llama.

    python benchmarks/llama_cpp.py REPO --node FOLDER [--store DIR] [--documents 16] [--texts 300] [--decode 64]
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, machine, table

from treering import opening
from treering.lm.export import REPORT, export_model, told_of
from treering.lm.gguf import QUANTIZATIONS
from treering.modelpack import quiet_transformers
from treering.pipeline.learn import current_model
from treering.text.strategies import Duplicates, documents
from treering.tokens.tokenizer import load_tokenizer

LONGEST = 512
"""How many tokens of a document are judged."""
PROMPT = "<MESSAGE> Fix"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--node", type=Path, required=True, help="the folder that holds node_modules/node-llama-cpp")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    model, told, unseen = texts_of(chosen.repo, chosen.store)
    tokenizer = load_tokenizer(str(model))
    sample = told[:: max(1, len(told) // chosen.texts)][: chosen.texts]
    ids = tokenizer.encode(sample)
    judged = [[tokenizer.eos_id, *some[:LONGEST]] for some in tokenizer.encode(unseen[-chosen.documents :])]
    size = sum(len(tokenizer.decode(some[1:]).encode()) for some in judged)
    asked = {
        "texts": sample, "documents": judged, "prompt": tokenizer.encode([PROMPT])[0], "decode": chosen.decode,
    }  # fmt: skip
    nats, likeliest, rate = in_transformers(model, asked)
    ways: list[dict[str, Any]] = [
        {
            "way": "transformers", "bits_per_byte": nats / math.log(2) / size, "same_top_1": 1.0, "same_tokens": 1.0,
            "tokens_per_cpu_second": rate, "megabytes": (model / "model.safetensors").stat().st_size / 1e6,
            "export_cpu_seconds": 0.0,
        }
    ]  # fmt: skip
    for quantize in reversed(QUANTIZATIONS):
        with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
            started = time.process_time()
            exported = export_model(model, Path(folder) / "out", "gguf", quantize)
            spent = time.process_time() - started
            found = in_llama_cpp(chosen.node, Path(folder) / "out" / "model.gguf", asked)
        best = [token for some in found["likeliest"] for token in some]
        ways.append(
            {
                "way": f"llama.cpp, {quantize}",
                "bits_per_byte": sum(sum(some) for some in found["nats"]) / math.log(2) / size,
                "same_top_1": sum(a == b for a, b in zip(best, likeliest, strict=True)) / len(best),
                "same_tokens": sum(a == b for a, b in zip(found["tokens"], ids, strict=True)) / len(ids),
                "tokens_per_cpu_second": found["decoded"] / found["seconds"] if found["seconds"] else 0.0,
                "megabytes": exported.files["model.gguf"] / 1e6,
                "export_cpu_seconds": spent,
            }
        )
    if chosen.json:
        print(json.dumps({"machine": where, "repo": str(chosen.repo), "ways": ways}, indent=2))
        return
    print(f"{chosen.repo}: {len(judged)} unseen commits ({size:,} bytes), {len(sample)} texts; {describe(where)}\n")
    print(
        table([tuple(name.replace("_", " ") for name in ways[0]), *(tuple(map(shown, way.values())) for way in ways)])
    )


def shown(value: object) -> str:
    return (
        f"{value:.4f}"
        if isinstance(value, float) and value < 10
        else f"{value:.1f}"
        if isinstance(value, float)
        else str(value)
    )


def texts_of(repo: Path, place: Path | None) -> tuple[Path, list[str], list[str]]:
    """The current model's folder, its history's documents, and those of them that it never saw."""
    with opening.place(repo, place).store(existing=True) as store:
        model = current_model(store)
        if model is None:
            raise SystemExit(f"there is no model of {repo}: run `treering train` first")
        first = json.loads((model / REPORT).read_text("utf-8"))["held_out_first"]
        told: list[str] = []
        unseen: list[str] = []
        duplicates = Duplicates()
        late = False
        for record, document in documents(store.records(), told_of(model).strategy):
            told.append(document.text)
            late = late or record.commit_hash == first
            if duplicates.of(record) is None and late:
                unseen.append(document.text)
    return model, told, unseen


def in_transformers(model: Path, asked: dict[str, Any]) -> tuple[float, list[int], float]:
    """Nats of all documents, the likeliest token at each place, and tokens decoded per CPU-second on one thread."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    quiet_transformers()
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(model), local_files_only=True)
    nats, likeliest = 0.0, []
    with torch.inference_mode():
        for document in asked["documents"]:
            ids = torch.tensor([document])
            logits = loaded(input_ids=ids).logits[0, :-1]
            nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            likeliest += logits.argmax(-1).tolist()
        prompt = torch.tensor([asked["prompt"]])
        seconds = []
        for length in (1, 1 + asked["decode"]):
            started = time.process_time()
            loaded.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=length,
                min_new_tokens=length,
            )  # fmt: skip
            seconds.append(time.process_time() - started)
    return nats, likeliest, asked["decode"] / (seconds[1] - seconds[0])


def in_llama_cpp(node: Path, gguf: Path, asked: dict[str, Any]) -> dict[str, Any]:
    command: list[str | Path] = ["node", Path(__file__).with_suffix(".mjs"), node, gguf]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"node ended with {done.returncode}: {done.stderr.strip()}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    main()
