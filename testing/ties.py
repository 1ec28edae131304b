"""What a quantised network may give where a sum lies between two integers: the order of its terms decides then."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from testing.oracle import session

Arrays = Mapping[str, np.ndarray]

OFF = 3e-4
"""How far values are moved before they are rounded, in steps: more than another order of terms does, less than
anything else.
"""

RUNS = 24

EXACT = {
    "DequantizeLinear",
    "Concat",
    "Gather",
    "Slice",
    "Transpose",
    "Reshape",
    "Where",
    "Identity",
    "Unsqueeze",
    "Squeeze",
    "Pad",
    "MaxPool",
    "Relu",
    "Max",
    "Min",
}
"""What a value goes through without being rounded: on such ways a tie is the same tie everywhere."""


class Ties:
    """The batch model with noise in front of its QuantizeLinear nodes, made only when a difference is to be judged."""

    def __init__(self, model: onnx.ModelProto, plain: bool):
        self._model, self._plain = model, plain

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return session(_noisy(self._model).SerializeToString(), plain=self._plain)

    def between(self, feeds: Arrays, name: str, want: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value of output `name` for `feeds`: with noise, and `want`, which is without."""
        found = np.stack([want, *(self._session.run([name], dict(feeds))[0] for _ in range(RUNS))])
        return found.min(axis=0), found.max(axis=0)


def _noisy(model: onnx.ModelProto) -> onnx.ModelProto:
    noisy = onnx.ModelProto()
    noisy.CopyFrom(model)
    made, nodes = {}, []
    for node in noisy.graph.node:
        source = made.get(node.input[0]) if node.input else None
        if node.op_type == "QuantizeLinear" and not _exact(source, made):
            x, scale, out = node.input[0], node.input[1], node.output[0]
            nodes += [
                helper.make_node("RandomUniformLike", [x], [f"{out}/noise"], low=-OFF, high=OFF),
                helper.make_node("Mul", [f"{out}/noise", scale], [f"{out}/off"]),
                helper.make_node("Add", [x, f"{out}/off"], [f"{out}/moved"]),
            ]
            node.input[0] = f"{out}/moved"
        nodes.append(node)
        made.update(dict.fromkeys(node.output, node))
    graph = helper.make_graph(nodes, noisy.graph.name, noisy.graph.input, noisy.graph.output, noisy.graph.initializer)
    return helper.make_model(graph, opset_imports=noisy.opset_import, ir_version=noisy.ir_version)


def _exact(node: onnx.NodeProto | None, made: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether what a node makes are values of an input or of constants as they are."""
    return node is None or (
        node.op_type in EXACT
        and (node.op_type == "DequantizeLinear" or all(_exact(made.get(name), made) for name in node.input))
    )
