"""Numbers that were kept as numbers though they may have been computed from the length of the export."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, QueryKey, Running, Static, Stream
from pulsify_onnx.prepare.fixed_length.export import Export
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.traits import Trait, declared, has
from pulsify_onnx.runtime.sidecar import KeptNumber

LEAST = 4
"""Smaller counts of frames would be listed in every model."""

PARTS = 8
"""Down to so small a part of the length a number counts as a share of it."""


def numbers_kept(export: Export) -> tuple[KeptNumber, ...]:
    """All of them, each once, in the order of the graph."""
    lengths = sorted({export.frames, *export.lengths()} - {0, 1})
    found: dict[KeptNumber, None] = {}
    for raw in export.source.model.graph:
        node = export.walk.node(raw)
        refused = any(
            isinstance(export.facts.get(out), Blocked) for out in node.outputs
        )  # it may not be as its schema says
        if (
            refused
            or "/length/" in node.name
            or not any(isinstance(f, (Stream, QueryKey, Running)) for f in node.facts)
        ):
            continue
        own = {export.at(f.extent) for f in node.streams}
        likely = sorted(lengths, key=lambda n: n not in own)
        for what, value, why in (*_windows(export, node), *_constants(export, node, likely), *_scales(node, likely)):
            found[KeptNumber(node=node.name, op_type=node.op_type, what=what, value=value, why=why)] = None
    return tuple(found)


Found = Iterator[tuple[str, float | int, str]]


def _windows(export: Export, node: Node) -> Found:
    """Pools that divide the export into equal windows, and kernels as wide as all of it."""
    x, y = node.fact(0), export.facts.get(node.outputs[0])
    if not has(node, Trait.WINDOWS) or not isinstance(x, Stream):
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
    if has(node, Trait.POOLS) and count > 1 and stride == n // count and kernel[k] in (stride, overlapping):
        for what, value in (("kernel_shape", kernel[k]), ("strides", stride)):
            yield what, value, f"what makes {count} windows of T = {n}"


def _named(less: int) -> str:
    return {0: "T", 1: "T - 1", -1: "T + 1"}[less]


def _constants(export: Export, node: Node, lengths: list[int]) -> Found:
    shaped, bounds = has(node, Trait.RESHAPES, Trait.EXPANDS), declared(node, Trait.BOUNDS)
    for index, fact in enumerate(node.facts):
        name = node.inputs[index] or ""
        if not isinstance(fact, Static) or fact.dtype == ir.DataType.STRING or "/length/" in name:
            continue
        array = fact.value.array if fact.value is not None else export.source.constant(fact.wire)
        if (
            array is None
            or array.dtype.kind not in "iuf"
            or not 0 < array.size <= (64 if shaped or bounds is not None else array.size)
        ):
            continue
        if shaped:
            numbers = sorted({int(v) for v in array.reshape(-1)} & {n for n in lengths if n >= LEAST})
            yield from ((name, n, f"the length T = {n}") for n in numbers)
        elif bounds is not None:
            if index in bounds:
                for v in sorted({int(v) for v in array.reshape(-1)}):
                    yield from ((name, v, why) for why in [_share(abs(v), lengths)] if why)
        elif not has(node, Trait.WINDOWS) and (array == array.reshape(-1)[0]).all():
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
            usual = (
                (of, told),
                (1 / of, f"1/{told}"),
                (math.sqrt(of), f"sqrt {told}"),
                (1 / math.sqrt(of), f"1/sqrt {told}"),
                (math.log(of), f"log {told}"),
                (1 / math.log(of), f"1/log {told}"),
            )
            why = next((why for number, why in usual if abs(size - number) <= 1e-6 * number), "")
            if why:
                return f"{why} of T = {n}"
    return _share(round(size), lengths) if size == round(size) else ""
