"""Tensors made from the length of the stream: positions and constants, computed anew for every pulse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dims, Expr, Outcome, Position
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules.edges import repeated
from pulsify_onnx.rules.kit.combinators import as_outcome, onnx_op, passthrough, static_value
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.registry import rule
from pulsify_onnx.rules.kit.traits import Trait, declares
from pulsify_onnx.rules.reshape import LENGTH_TOLD, constant_over_time
from pulsify_onnx.rules.slicing import rate_of


@rule("Range", versions=(11, 27))
def range_rule(node: Node) -> Outcome:
    """Positions of frames: a fixed start and step, up to the length.

    Refuses: a start or a step that depends on the length.
    """
    first, limit, step_ = (node.sizes(k, what) for k, what in enumerate(("the start", "the limit", "the step")))
    assert first is not None and limit is not None and step_ is not None
    start, stop, stride = first[0], limit[0], step_[0]
    fact = node.facts[0]
    assert isinstance(fact, (Static, ShapeTensor))
    low, by = start.ratio, stride.ratio
    if by is not None and by <= 0:
        refuse("it counts down from the length of the stream, so the first frame needs the last", hint="count upwards")
    if low is None or by is None:
        refuse(
            "it counts from a number that depends on the length of the stream", hint="count from 0 with a fixed step"
        )
    extent = ((stop - start) * (1 / by)).ceil()
    rate = rate_of(extent)
    kind = fact.dtype.numpy()
    expr: Expr = Position(rate)
    if fact.dtype.value != 7:
        expr = onnx_op("Cast", expr, to=int(fact.dtype))
    if by != 1:
        expr = onnx_op("Mul", expr, Const(np.asarray(float(by) if kind.kind == "f" else int(by), kind)))
    if low:
        expr = onnx_op("Add", expr, Const(np.asarray(float(low) if kind.kind == "f" else int(low), kind)))
    return as_outcome(node, [expr], [Stream(node.outputs[0], fact.dtype, (extent,), 0, rate, positional=True)])


@declares(Trait.FILLS)
@rule("ConstantOfShape", versions=(9, 20, 21, 23, 24, 25))
def constant_of_shape(node: Node) -> Outcome:
    """A constant along the stream."""
    target = node.sizes(0, "the shape")
    assert target is not None
    value = node.attr("value")
    array = np.zeros(1, np.float32) if value is None else np.asarray(value.numpy())
    fact = Static(node.outputs[0], ir.DataType.from_numpy(array.dtype), ())
    return constant_over_time(
        node, fact, tuple(target), lambda dims: onnx_op("Expand", Const(array.reshape(())), Dims(dims))
    )


@declares(Trait.REPEATS)
@rule("Tile", versions=(6, 13))
def tile(node: Node) -> Outcome:
    """A stream repeated along other axes, or a single frame repeated along it.

    Refuses: repeating the stream itself.
    """
    repeats = node.sizes(1, "the number of repeats")
    assert repeats is not None
    fact = node.facts[0]
    assert fact is not None
    own = shape_of(fact)
    shape = tuple(d * r for d, r in zip(own, repeats))
    if isinstance(fact, Stream):
        again = repeated(node, fact, shape)
        if again is not None:
            return again
        if repeats[fact.axis].constant != 1:
            refuse("it repeats the whole stream after its end", hint="repeat along another axis")
        if any(r.constant is None for r in repeats):
            refuse("the number of repeats depends on the length of the stream", hint="repeat a fixed number of times")
        return passthrough(node, [fact.axis, None])
    moving = next((k for k, d in enumerate(shape) if d.moves), None)
    if moving is None or own[moving].constant != 1:
        refuse(LENGTH_TOLD, hint="repeat one frame")
    value = static_value(fact)
    return constant_over_time(
        node,
        fact,
        shape,
        lambda dims: onnx_op(
            "Tile", value, Dims(tuple(d if k == moving else _times(repeats[k]) for k, d in enumerate(dims)))
        ),
    )


def _times(repeat: Length) -> int:
    if repeat.constant is None:
        refuse("the number of repeats is not known", hint="repeat a fixed number of times")
    return repeat.constant
