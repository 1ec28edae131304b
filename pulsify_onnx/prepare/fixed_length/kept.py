"""Numbers that were kept as numbers though they may have been computed from the length of the export."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, Pair, Prefix, Static, Stream
from pulsify_onnx.prepare.fixed_length.export import Export
from pulsify_onnx.rules.kit.node import Node

POOLS = {"AveragePool", "MaxPool", "LpPool"}
WINDOWS = POOLS | {"Conv", "ConvTranspose"}
BOUNDS = {"Slice": (1, 2), "Pad": (1,), "Split": (1,), "Gather": (1,), "TopK": (1,)}
"""Inputs that count frames where they speak of the stream axis."""

LEAST = 4
"""Smaller counts of frames would be listed in every model."""

PARTS = 8
"""Down to so small a part of the length a number counts as a share of it."""


@dataclass(frozen=True)
class Kept:
    """A number of `node`, `what` holds it, and how it would follow from the length, with T frames (`why`)."""

    node: str
    op_type: str
    what: str
    value: float | int
    why: str

    def as_json(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"node": self.node, "op_type": self.op_type, "what": self.what, "value": self.value, "why": self.why}


def kept(export: Export) -> tuple[Kept, ...]:
    """All of them, each once, in the order of the graph."""
    lengths = sorted({export.frames, *export.lengths()} - {0, 1})
    found: dict[Kept, None] = {}
    for raw in export.source.model.graph:
        node = export.walk.node(raw)
        refused = any(isinstance(export.facts.get(out), Blocked) for out in node.outputs)  # it may not be as its schema says
        if refused or "/length/" in node.name or not any(isinstance(f, (Stream, Pair, Prefix)) for f in node.facts):
            continue
        own = {export.at(f.extent) for f in node.streams}
        likely = sorted(lengths, key=lambda n: n not in own)
        for what, value, why in (*_windows(export, node), *_constants(export, node, likely), *_scales(node, likely)):
            found[Kept(node.name, node.op_type, what, value, why)] = None
    return tuple(found)


Found = Iterator[tuple[str, float | int, str]]


def _windows(export: Export, node: Node) -> Found:
    """Pools that divide the export into equal windows, and kernels as wide as all of it."""
    x, y = node.fact(0), export.facts.get(node.outputs[0])
    if node.op_type not in WINDOWS or not isinstance(x, Stream):
        return
    n, k = export.at(x.extent), x.axis - 2
    weights = node.fact(1)
    shape = weights.shape if isinstance(weights, Static) else ()
    kernel = node.ints("kernel_shape") or [d.constant or 0 for d in shape[2:]]
    if not 0 <= k < len(kernel):
        return
    if n >= LEAST and kernel[k] in (n - 1, n, n + 1):
        yield "kernel_shape", kernel[k], _named(n - kernel[k])
    stride = (node.ints("strides") or [1] * len(kernel))[k]
    count = export.at(y.extent) if isinstance(y, Stream) else 0
    overlapping = n - (count - 1) * stride if stride > 1 else stride
    if node.op_type in POOLS and count > 1 and stride == n // count and kernel[k] in (stride, overlapping):
        for what, value in (("kernel_shape", kernel[k]), ("strides", stride)):
            yield what, value, f"what makes {count} windows of T = {n}"


def _named(less: int) -> str:
    return {0: "T", 1: "T - 1", -1: "T + 1"}[less]


def _constants(export: Export, node: Node, lengths: list[int]) -> Found:
    for index, fact in enumerate(node.facts):
        name = node.inputs[index] or ""
        if not isinstance(fact, Static) or fact.dtype == ir.DataType.STRING or "/length/" in name:
            continue
        array = fact.value.array if fact.value is not None else export.source.constant(fact.wire)
        if array is None or array.dtype.kind not in "iuf" or not 0 < array.size <= (64 if node.op_type in (*BOUNDS, "Reshape", "Expand") else array.size):
            continue
        if node.op_type in ("Reshape", "Expand"):
            numbers = sorted({int(v) for v in array.reshape(-1)} & {n for n in lengths if n >= LEAST})
            yield from ((name, n, f"the length T = {n}") for n in numbers)
        elif node.op_type in BOUNDS:
            if index in BOUNDS[node.op_type]:
                for v in sorted({int(v) for v in array.reshape(-1)}):
                    yield from ((name, v, why) for why in [_share(abs(v), lengths)] if why)
        elif node.op_type not in WINDOWS and (array == array.reshape(-1)[0]).all():
            value = array.reshape(-1)[0].item()
            yield from ((name, value, why) for why in [_follows(value, lengths)] if why)


def _scales(node: Node, lengths: list[int]) -> Found:
    """Attributes that are factors."""
    for what in ("scale", "alpha", "beta"):
        value = node.attr(what, None)
        if isinstance(value, float) and (why := _follows(value, lengths)):
            yield what, value, why


def _share(value: int, lengths: list[int]) -> str:
    """How a whole number may have been computed, '' where in no usual way."""
    for n in lengths:
        if value >= LEAST and value in (n - 1, n, n + 1):
            return f"{_named(n - value)} of T = {n}"
        for parts in range(2, PARTS + 1):
            top = next((p for p in range(1, parts) if value >= LEAST and value * parts == n * p), None)
            if top is not None:
                return f"{top}/{parts} of T = {n}"
    return ""


def _follows(value: float | int, lengths: list[int]) -> str:
    """The same for any number."""
    size = abs(float(value))
    if not np.isfinite(size) or size == 0:
        return ""
    for n in lengths:
        for of, told in ((of, told) for of, told in ((n, "T"), (n - 1, "(T - 1)"), (n + 1, "(T + 1)")) if of > 1):
            usual = ((of, told), (1 / of, f"1/{told}"), (math.sqrt(of), f"sqrt {told}"), (1 / math.sqrt(of), f"1/sqrt {told}"),
                     (math.log(of), f"log {told}"), (1 / math.log(of), f"1/log {told}"))
            why = next((why for number, why in usual if abs(size - number) <= 1e-6 * number), "")
            if why:
                return f"{why} of T = {n}"
    return _share(round(size), lengths) if size == round(size) else ""
