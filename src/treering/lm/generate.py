"""Sampling from a trained model's folder."""

from pathlib import Path

from treering.errors import ModelError, UsageError, needs
from treering.modelpack import quiet_transformers


def generate(folder: Path, prompt: str, *, max_tokens: int, temperature: float, seed: int) -> str:
    """The prompt and up to ``max_tokens`` tokens after it. Temperature 0 always takes the likeliest token."""
    with needs("train"):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelError(f"there is no model in {folder}", "run `treering train` first")
    quiet_transformers()
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    inputs = tokenizer(prompt or tokenizer.eos_token, return_tensors="pt", add_special_tokens=False)
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95} if temperature else {"do_sample": False}
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None:
        asked = inputs["input_ids"].shape[1]
        if asked >= longest:
            raise UsageError(f"the prompt has {asked} tokens and the model reads {longest}", "shorten it")
        max_tokens = min(max_tokens, longest - asked)
    ids = model.generate(**inputs, max_new_tokens=max_tokens, **sampling)[0]
    return str(tokenizer.decode(ids, skip_special_tokens=True))
