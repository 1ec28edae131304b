"""What a delay must be: the lookahead of the batch model, measured by perturbing its input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from pulsify_onnx.api import PulsedModel, pulsify
from testing.networks import LAYERS, conv, conv_transpose, cut, interleave, join, pad, resize
from testing.oracle import session

DRAWN = (conv, conv_transpose, cut, join, pad, resize, interleave)
SMOOTH = tuple((layer, weight) for layer, weight in LAYERS if layer in DRAWN)
"""Layers through which every perturbation is seen."""


def last_needed(model: onnx.ModelProto, frames: int, name: str, axis: int = 2, seed: int = 0) -> np.ndarray:
    """Index of the last input frame that each output frame depends on (-1: none), by perturbing the batch model."""
    run = session(model.SerializeToString())
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value or frames for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    feeds = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    want = run.run([name], feeds)[0]
    last = np.full(want.shape[axis], -1)
    for j in range(frames):
        for size in (3.0, -3.0):
            moved = {key: x.copy() for key, x in feeds.items()}
            for x in moved.values():
                if x.shape[2] == frames:
                    x[:, :, j] += size * (1 + rng.random(x[:, :, j].shape).astype(np.float32))
            changed = np.abs(run.run([name], moved)[0] - want) > 1e-6
            last[changed.any(tuple(k for k in range(want.ndim) if k != axis))] = j
    return last


def least_delay(last: np.ndarray, rate: Fraction, pulse: int) -> int:
    """The smallest delay at which every frame comes out no sooner than its last input frame has come in."""
    frames = rate * pulse
    assert frames.denominator == 1
    delay = 0
    while any(j >= ((delay + i) // int(frames) + 1) * pulse for i, j in enumerate(last)):
        delay += 1
    return delay


def uneven(node: onnx.NodeProto, pulsed: PulsedModel, weights: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Whether some of its frames or channels need less than others: one delay serves them all.

    Channels become frames, some channels are left out, something chooses, or a transposed convolution leaves gaps,
    which are its bias alone.
    """
    if node.op_type == "Gather":
        channels = pulsed.plan.facts[node.input[0]].shape[1]  # type: ignore[union-attr]
        return len(np.unique(weights[node.input[1]])) != channels.constant
    if node.op_type == "ConvTranspose":
        return bool(weights[node.input[1]].shape[2] < next(a.ints[0] for a in node.attribute if a.name == "strides"))
    return node.op_type in ("Reshape", "Where", "Max", "Min")


@dataclass(frozen=True)
class Off:
    """An output whose delay is not the least one; `borders`: wires before it whose frames outside were made real ones.

    Such a wire is made where a border can't be told before the stream runs, or where an operator that samples between
    frames reads one.
    """

    output: str
    delay: int
    least: int
    borders: tuple[str, ...]

    def __str__(self) -> str:
        """In words."""
        return f"{self.output}: delay {self.delay}, the network needs {self.least}" + (
            f", behind the solid border of {', '.join(self.borders)}" if self.borders else ""
        )


def off(model: onnx.ModelProto, unit: int) -> list[Off]:
    """Outputs of a network of `SMOOTH` layers whose delay is not the least one; it runs for multiples of `unit` frames.

    What needs less for some of its frames or channels than for others is compared from one side: its delay may be
    larger than the least.
    """
    pulsed = pulsify(model, pulse=None)
    frames = 12 * unit * math.ceil(48 / (12 * unit))
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    solid = {wire.split("#solid")[0] for wire in pulsed.plan.wires if "#solid" in wire}
    found = []
    for out in pulsed.spec["outputs"]:
        nodes = behind(model, out["name"])
        last = last_needed(model, frames, out["name"])
        least = least_delay(
            last[: len(last) * 3 // 4], Fraction(*out["rate"]), pulsed.spec["pulse_multiple"]
        )  # what the end cuts off needs less
        if out["delay"] < least or (out["delay"] > least and not any(uneven(node, pulsed, weights) for node in nodes)):
            before = {name for node in nodes for name in (*node.input, *node.output)}
            found.append(Off(out["name"], out["delay"], least, tuple(sorted(solid & before))))
    return found


def behind(model: onnx.ModelProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that an output is made by."""
    needed, found = {output}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            found.append(node)
    return found
