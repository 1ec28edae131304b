"""What a frame costs: attention in a window, streamed and as one batch, at growing lengths.

    python benchmarks/attention_cost.py [--layers 2] [--left 64] [--pulse 8]

The batch model computes all queries × all keys, so a frame costs more the longer the recording; the pulsed one keeps a
window
of keys and values. Ratios are taken within one run. The second table sets the bytes of state of a layer beside a
textbook
cache of as many keys and values.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.conformer import Encoder
from pulsify_onnx.api import PulsedModel, pulsify

LENGTHS = (1000, 2000, 4000, 8000, 16000)
LIMIT = 1.5


def encoder(layers: int, dim: int, heads: int, left: int) -> onnx.ModelProto:
    """Layers of attention and feed-forward, in which a query sees itself and `left` frames before it."""
    net = Encoder(dim, heads, seed=0)
    frames = net.op("Slice", net.op("Shape", "x"), net.ints(1), net.ints(2))
    index = net.op("Range", net.index(0), net.op("Squeeze", frames, net.ints(0)), net.index(1))
    query, key = net.op("Unsqueeze", index, net.ints(1)), net.op("Unsqueeze", index, net.ints(0))
    mask = net.op(
        "And", net.op("LessOrEqual", key, query), net.op("GreaterOrEqual", key, net.op("Sub", query, net.index(left)))
    )
    h, split = "x", net.ints(0, 0, heads, dim // heads)
    for _ in range(layers):
        q, k, v = (net.op("Reshape", net.linear(h, dim), split) for _ in range(3))
        scores = net.op("MatMul", net.op("Transpose", q, perm=[0, 2, 1, 3]), net.op("Transpose", k, perm=[0, 2, 3, 1]))
        weights = net.op("Softmax", net.op("Where", mask, scores, net.const(np.float32(-np.inf))), axis=-1)
        mixed = net.op(
            "Transpose", net.op("MatMul", weights, net.op("Transpose", v, perm=[0, 2, 1, 3])), perm=[0, 2, 1, 3]
        )
        h = net.op("Add", h, net.linear(net.op("Reshape", mixed, net.ints(0, 0, dim)), dim))
        h = net.forward(h, 2 * dim)
    net.op("Identity", h, output="y")
    graph = helper.make_graph(
        net.nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "T", dim])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "U", dim])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session(model: bytes) -> ort.InferenceSession:
    """One thread, so that times add up."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def streamed(pulsed: PulsedModel, x: np.ndarray) -> float:
    """Seconds of processor time per frame of `x`: the median over its pulses, in the last quarter of the stream."""
    run = session(pulsed.proto().SerializeToString())
    spec = pulsed.spec
    pulse, states = spec["pulse"], {s["input"]: np.zeros(s["shape"], s["dtype"]) for s in spec["states"]}
    names = [s["input"] for s in spec["states"]]
    chunks = [np.ascontiguousarray(x[:, t : t + pulse]) for t in range(0, x.shape[1] // pulse * pulse, pulse)]
    took = []
    for chunk in chunks:
        began = time.process_time()
        _, *found = run.run(None, {"x": chunk, **states})
        states = dict(zip(names, found))
        took.append(time.process_time() - began)
    return float(np.median(took[-len(took) // 4 :])) / pulse


def costs(
    layers: int, dim: int, heads: int, left: int, pulse: int, lengths: tuple[int, ...] = LENGTHS
) -> list[tuple[int, float, float]]:
    """(frames, seconds per frame of the batch model, of the pulsed one)."""
    model = encoder(layers, dim, heads, left)
    batch, pulsed = session(model.SerializeToString()), pulsify(model, pulse=pulse)
    streamed(pulsed, np.zeros((1, 1000, dim), np.float32))  # warm
    rows = []
    for frames in lengths:
        x = np.random.default_rng(frames).standard_normal((1, frames, dim)).astype(np.float32)
        began = time.process_time()
        batch.run(None, {"x": x})
        rows.append((frames, (time.process_time() - began) / frames, streamed(pulsed, x)))
    return rows


def main() -> int:
    """Print both tables; 1 if a frame of the longest stream costs much more than one of the shortest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, value in (("layers", 2), ("dim", 64), ("heads", 1), ("left", 64), ("pulse", 8), ("up-to", LENGTHS[-1])):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    rows = costs(
        given.layers, given.dim, given.heads, given.left, given.pulse, tuple(n for n in LENGTHS if n <= given.up_to)
    )
    _, batch, pulsed = rows[0]
    print(f"{'frames':>8} {'batch µs/frame':>15} {'growth':>7} {'pulsed µs/frame':>16} {'growth':>7}")
    for frames, b, p in rows:
        print(f"{frames:>8} {b * 1e6:>15.1f} {b / batch:>7.2f} {p * 1e6:>16.1f} {p / pulsed:>7.2f}")
    spec = pulsify(encoder(given.layers, given.dim, given.heads, given.left), pulse=given.pulse).spec
    held = sum(s["bytes"] for s in spec["states"] if s["role"] == "history") // given.layers
    cache = 2 * 4 * given.left * given.dim
    print(
        f"state of a layer: {held} bytes; keys and values of {given.left} frames: {cache} bytes; ratio "
        f"{held / cache:.2f}"
    )
    return int(rows[-1][2] > LIMIT * pulsed)


if __name__ == "__main__":
    sys.exit(main())
