"""Conversion time against the size of the graph: generated graphs of 300 and 3,000 nodes; the second may take 15 times
the first.

python benchmarks/analysis_linear.py [--pulse N]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pulsify_onnx.api import pulsify

SIZES = (300, 3000)
LIMIT = 15


def graph(nodes: int, seed: int = 0) -> onnx.ModelProto:
    """Residual blocks (padded convolution, activation, gate, sum), with a computed reshape and a recurrence now and
    then.
    """
    rng = np.random.default_rng(seed)
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(array: object) -> str:
        name = f"c{len(weights)}"
        weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(made)}"
        made.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def weight(*shape: int) -> str:
        return constant((rng.standard_normal(shape) * 0.3).astype(np.float32))

    x = "x"
    block = 0
    while len(made) < nodes - 1:
        kind = block % 6
        if kind < 4:
            d = 2 ** (block % 5)
            left = 2 * d if kind < 3 else d
            a = op("Conv", x, weight(4, 4, 3), weight(4), pads=[left, 2 * d - left], dilations=[d])
            x = op("Add", op("Mul", op("Tanh", a), op("Sigmoid", a)), x)
        elif kind == 4:
            t = op("Transpose", x, perm=[0, 2, 1])
            frames = op("Gather", op("Shape", t), constant(np.asarray([1], np.int64)), axis=0)
            t = op(
                "Reshape",
                t,
                op(
                    "Concat",
                    constant(np.asarray([1], np.int64)),
                    frames,
                    constant(np.asarray([2, 2], np.int64)),
                    axis=0,
                ),
            )
            x = op("Transpose", op("Reshape", t, constant(np.asarray([0, 0, -1], np.int64))), perm=[0, 2, 1])
        else:
            t = op(
                "GRU",
                op("Transpose", x, perm=[2, 0, 1]),
                weight(1, 12, 4),
                weight(1, 12, 4),
                weight(1, 24),
                hidden_size=4,
            )
            x = op("Transpose", op("Squeeze", t, constant(np.asarray([1], np.int64))), perm=[1, 2, 0])
        block += 1
    made.append(helper.make_node("Identity", [x], ["y"], name="end"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, "time"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, "time"])]
    return helper.make_model(
        helper.make_graph(made, "large", inputs, outputs, initializer=weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def seconds(nodes: int, pulse: int, end_of_stream: bool) -> float:
    """The best of a few conversions of a graph of `nodes` nodes."""
    model = graph(nodes)
    best = float("inf")
    for _ in range(3 if nodes < 1000 else 2):
        start = time.perf_counter()
        pulsify(model, pulse=pulse, end_of_stream=end_of_stream)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> int:
    """Command line; exit status 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pulse", type=int, default=16)
    args = parser.parse_args()
    pulsify(graph(30), pulse=args.pulse)  # imports, and tables that are made once
    worst = 0.0
    for end in (False, True):
        small, large = (seconds(n, args.pulse, end) for n in SIZES)
        worst = max(worst, large / small)
        what = "with an end of stream" if end else "without an end"
        print(
            f"{what}: {SIZES[0]} nodes {small:.2f} s, {SIZES[1]} nodes {large:.2f} s, ratio {large / small:.1f} "
            f"(at most {LIMIT})"
        )
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
