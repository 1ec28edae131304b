"""Linear interpolation that an exporter wrote as index arithmetic: two frames picked by position, and a share of their
difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Interpolation:
    """``data[first] + (data[second] - data[first]) * share`` along `axis` of `data`, as `node` sums it.

    There are as many positions as frames that are `counted`.
    """

    node: ir.Node
    data: ir.Value
    axis: int
    first: ir.Value
    second: ir.Value
    share: ir.Value
    counted: ir.Value


@dataclass(frozen=True)
class _Picked:
    data: ir.Value
    axis: int
    index: ir.Value


def interpolations(graph: ir.Graph) -> Iterator[Interpolation]:
    """All that look like one; what the positions are is not known yet."""
    for node in graph:
        if node.op_type != "Add" or node.domain:
            continue
        with suppress(TypeError, ValueError, IndexError, AttributeError):  # not as its schema says: its rule will tell
            found = next((s for s in (_sum(node, *pair) for pair in _both(node)) if s is not None), None)
            if found is not None:
                yield found


def _sum(node: ir.Node, start: ir.Value, rest: ir.Value) -> Interpolation | None:
    low, product = _picked(start), _made(rest, "Mul")
    if low is None or product is None:
        return None
    for difference, share in _both(product):
        made = _made(difference, "Sub")
        if made is None or made.inputs[1] is not start or made.inputs[0] is None:
            continue
        high = _picked(made.inputs[0])
        counted = _counted(low.index)
        if counted is not None and high is not None and high.data is low.data and high.axis == low.axis:
            return Interpolation(node, low.data, low.axis, low.index, high.index, share, counted)
    return None


def _counted(value: ir.Value) -> ir.Value | None:
    """The frames that positions are computed from, one by one."""
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node.op_type == "Range" and not node.domain:
            return node.outputs[0]
        for each in node.inputs if node is not None else ():
            if each is not None and each not in seen:
                seen.add(each)
                waiting.append(each)
    return None


def _both(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    a, b = node.inputs
    if a is not None and b is not None:
        yield a, b
        yield b, a


def _made(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _picked(value: ir.Value) -> _Picked | None:
    """Entries of something along one of its axes, which stays where it is."""
    gather = _made(value, "Gather")
    if gather is not None and gather.inputs[0] is not None and gather.inputs[1] is not None:
        axis = gather.attributes["axis"].as_int() if "axis" in gather.attributes else 0
        return _Picked(gather.inputs[0], axis, gather.inputs[1])
    back = _made(value, "Transpose")
    gather = _made(back.inputs[0] if back is not None else None, "GatherND")
    front = _made(gather.inputs[0] if gather is not None else None, "Transpose")
    column = _made(gather.inputs[1] if gather is not None else None, "Unsqueeze")
    if (
        back is None
        or gather is None
        or front is None
        or column is None
        or ("batch_dims" in gather.attributes and gather.attributes["batch_dims"].as_int())
    ):
        return None
    if "perm" not in front.attributes or "perm" not in back.attributes:
        return None
    there, here = front.attributes["perm"].as_ints(), back.attributes["perm"].as_ints()
    data, index = front.inputs[0], column.inputs[0]
    if data is None or index is None or len(there) != len(here) or [there[k] for k in here] != sorted(there):
        return None
    return _Picked(data, there[0], index)
