"""Layers that keep less for the way back: the same loss and the same gradients, and less kept."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

KINDS: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 160, "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.1, "attn_pdrop": 0.0},
    "opt": {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 256, "word_embed_proj_dim": 64,
        "max_position_embeddings": 64,
    },
}  # fmt: skip
TOKENS = 48


def made(kind: str, *, adapted: bool) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from treering.lm.train import _with_adapters

    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, vocab_size=32, bos_token_id=None, eos_token_id=None, **KINDS[kind])
    model = AutoModelForCausalLM.from_config(config)
    if adapted:
        model = _with_adapters(model, ())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:  # they begin as nothing
                    parameter.normal_(std=0.1)
    return model.train()


def learned(model: Any, lean: Any = None, dtype: Any = None) -> tuple[float, dict[str, Any]]:
    """The loss and the gradients of one step."""
    import torch

    from treering.lm.module import chunked_loss

    torch.manual_seed(2)
    ids = torch.randint(0, 32, (2, TOKENS + 1))
    model.zero_grad()
    with (
        torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None),
        lean.forward() if lean else nullcontext(),
    ):
        loss = chunked_loss(model, ids[:, :-1], ids[:, 1:])
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_the_layers_as_they_were(kind: str, adapted: bool, remembers: bool) -> None:
    import torch

    from treering.lm.lean import leaner

    model = made(kind, adapted=adapted)
    loss, wanted = learned(model)
    with leaner(model, remembers=remembers) as lean:
        again, found = learned(model, lean)
    assert again == pytest.approx(loss, rel=1e-5)
    assert set(found) == set(wanted)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5) for name in wanted)
    assert learned(model)[0] == loss, "the layers are as they were"
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_in_bfloat16_they_are_as_near_as_that_is(adapted: bool) -> None:
    import torch

    from treering.lm.lean import leaner

    model = made("llama", adapted=adapted)
    loss, wanted = learned(model)
    with leaner(model, remembers=True) as lean:
        again, found = learned(model, lean, torch.bfloat16)
    assert again == pytest.approx(loss, rel=5e-3)
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).norm()) < 0.05 * float(gradient.norm()), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_keeps_what_the_plan_says(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from treering.lm.lean import Lean, leaner
    from treering.lm.shape import shape_of

    model = made(kind, adapted=False)
    model.config.save_pretrained(tmp_path)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    pack = Lean._pack

    def keep(self: Lean, tensor: Any) -> Any:
        packed = pack(self, tensor)
        for one in [packed] if not isinstance(packed, tuple) else packed[0].inputs:
            storage = one.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
        return packed

    monkeypatch.setattr(Lean, "_pack", keep)
    with leaner(model, remembers=True) as lean:
        learned(model, lean)
    shape = shape_of(str(tmp_path))
    told = 4 * 2 * TOKENS * shape.layers * shape.kept_lean
    assert sum(kept.values()) == pytest.approx(told, rel=0.15)


def test_the_heap_is_given_back_once_on_the_way_through_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from treering.lm import lean as room

    given: list[int] = []
    monkeypatch.setattr(room, "give_back", lambda: given.append(1))
    model = made("llama", adapted=True)
    with room.leaner(model, remembers=True) as lean:
        learned(model, lean)
        with torch.no_grad():
            model(torch.zeros(1, 2, dtype=torch.long))
    assert len(given) == 1
    learned(model)
    assert len(given) == 1, "the layers are as they were"
