"""The computers people have, and the models they train on them: for docs/training.md's table, what proves it, and what
measures it on a GPU.
"""

from typing import Any

from treering.lm.hardware import Machine
from treering.lm.plan import METHODS, Plan, plan
from treering.lm.shape import Shape

GB = 10**9
SEQUENCES, LENGTH = 8, 1024
"""Of a step of the table."""


def computer(device: str, memory: float, capability: tuple[int, int] | None = None, devices: int = 1) -> Machine:
    return Machine(
        8,
        32 * GB,
        device,
        "a machine",
        round(memory * GB),
        capability,
        devices,
        devices,
        8,
        bool(capability and capability >= (8, 0)),
    )


MACHINES = {
    "CPU, 16 GB, 12 GB free": computer("cpu", 12),
    "Apple M1, 16 GB": computer("mps", 11),
    "8 GB Turing (RTX 2060)": computer("cuda", 7.8, (7, 5)),
    "24 GB (RTX 3090, 4090)": computer("cuda", 24, (8, 6)),
    "80 GB (A100, H100)": computer("cuda", 80, (9, 0)),
}
BASES = {
    "SmolLM2-135M": Shape(134515008, 30, 576, 9, 49152, 8192, 106168320, 305280, 11136, 5760, False),
    "gpt2": Shape(124439808, 12, 768, 12, 50257, 1024, 84934656, 147456, 23040, 9216, True),
    "opt-350m": Shape(331196416, 24, 1024, 16, 50272, 2048, 303038464, 445440, 14336, 12288, False),
    "opt-1.3b": Shape(1315758080, 24, 2048, 32, 50272, 2048, 1207959552, 884736, 28672, 24576, False),
    "a 7B Llama": Shape(7241732096, 32, 4096, 32, 32000, 8192, 6979321856, 2621440, 92160, 47104, False),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "gpt2": {"model_type": "gpt2"},
    "opt-350m": {
        "model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "word_embed_proj_dim": 512, "do_layer_norm_before": False,
    },
    "opt-1.3b": {
        "model_type": "opt", "hidden_size": 2048, "ffn_dim": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
    },
    "a 7B Llama": {
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    },
}  # fmt: skip
"""What a model of each shape is made from, as transformers has it; what is not named is as it comes there."""


def heaviest(machine: Machine, shape: Shape) -> Plan:
    """The plan of a step of the table by the heaviest method that fits, or by the lightest where none does."""
    made = [plan(machine, shape, method=method, sequences=SEQUENCES, sequence_length=LENGTH) for method in METHODS]
    return next((one for one in made if one.fits), made[-1])
