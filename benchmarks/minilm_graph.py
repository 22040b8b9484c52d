"""Make src/treering/vectors/minilm.onnx: all-MiniLM-L6-v2 without its weights, in the fused operators of ONNX Runtime.

    python benchmarks/minilm_graph.py

The weights are those of the published file, read when the model is loaded (treering.vectors.minilm). The graph is
BERT's encoder (Devlin et al. 2019) with 6 layers, 12 heads, 384 dimensions; what ONNX Runtime makes of an exported one
by itself leaves a third of the time outside the matrix products.
"""

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from treering.vectors import minilm

FUSED = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
EPSILON = 1e-12


def graph() -> bytes:
    """The model, serialised. Inputs ``ids`` and ``mask`` of shape (texts, tokens), output ``hidden``."""
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def node(operator: str, inputs: list[str], output: str, domain: str = FUSED, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    for name, shape in minilm.SHAPES.items():
        weight = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights")
        weights.append(weight)
    hidden = node(
        "EmbedLayerNormalization",
        ["ids", "", "words", "positions", "", "embedded.gain", "embedded.bias", "mask"],
        "embedded",
        epsilon=EPSILON,
    )
    nodes[-1].output.append("lengths")
    for layer in range(minilm.LAYERS):
        of = f"{layer}."
        seen = node("Attention", [hidden, of + "qkv", of + "qkv.bias", "mask"], of + "seen", num_heads=minilm.HEADS)
        told = node("MatMul", [seen, of + "out"], of + "told", domain="")
        norm = [of + "out.gain", of + "out.shift", of + "out.bias"]
        middle = node("SkipLayerNormalization", [told, hidden, *norm], of + "middle", epsilon=EPSILON)
        wide = node("MatMul", [middle, of + "up"], of + "wide", domain="")
        active = node("BiasGelu", [wide, of + "up.bias"], of + "active")
        narrow = node("MatMul", [active, of + "down"], of + "narrow", domain="")
        norm = [of + "down.gain", of + "down.shift", of + "down.bias"]
        hidden = node("SkipLayerNormalization", [narrow, middle, *norm], of + "hidden", epsilon=EPSILON)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info(name, TensorProto.INT32, ["texts", "tokens"]) for name in ("ids", "mask")],
            [helper.make_tensor_value_info(hidden, TensorProto.FLOAT, ["texts", "tokens", minilm.DIMENSIONS])],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)],
        ir_version=9,
        producer_name="treering",
    )
    made: bytes = model.SerializeToString(deterministic=True)
    return made


if __name__ == "__main__":
    minilm.GRAPH.write_bytes(graph())
