"""The last frames of the stream: those that came last so far."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulsify_onnx.algebra.facts import Running, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import Length, LengthLike
from pulsify_onnx.algebra.ordering import assume
from pulsify_onnx.algebra.padding import crop
from pulsify_onnx.algebra.plan import Expr, Outcome, State, Test, When
from pulsify_onnx.algebra.windows import wait_until_known, windowed
from pulsify_onnx.rules.kit.combinators import as_outcome, const, onnx_op
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.real import going_on, newest_real
from pulsify_onnx.rules.kit.running import Accumulator, Feed, cast, wide


def last_frames(
    node: Node, x: Stream, count: int, end: LengthLike, name: str
) -> tuple[Expr, Running, tuple[State, ...]]:
    """The last `count` frames of `x` without its last `end`: expression, fact (of the node's output) and states.

    They are the last window of so many frames. Where the stream may end, windows after the end arrive too, so the
    last real one is kept in a state.
    """
    options = node.options
    assume(x.extent - count - end, (0, 1))
    window, y = windowed(crop(x, end=end), count, 1, options)
    (window,), y = wait_until_known([window], y, always=True)
    source = Feed((y,), (window,), options)
    shape = (*x.shape[: x.axis], Length.of(count), *x.shape[x.axis + 1 :])
    fact = source.fact(node.outputs[0], x.dtype, shape)
    if count == 1 and not Length.of(end).terms:
        fact = replace(fact, last=x)
    endless = onnx_op("Slice", window, const([-count]), const([2**31 - 1]), const([x.axis]))
    kind = x.dtype if x.dtype.is_floating_point() else wide(x.dtype)  # onnxruntime has no Where of booleans
    held = Accumulator(source, name, kind, shape, "last")
    at = onnx_op("Add", newest_real(y, source.frames), const(np.arange(count)))
    value = onnx_op("Where", going_on(y), cast(onnx_op("Gather", window, at, axis=x.axis), x.dtype, kind), held.past)
    ends = Test.past(y.extent)
    return When(ends, cast(value, kind, x.dtype), endless), fact, (replace(held.becomes(value), test=ends),)


def last_slice(node: Node, x: Stream, start: Length, end: Length, by: int) -> Outcome | None:
    """``x[start:end:by]`` along the stream where both count from its end; None where they do not."""
    first, last = (x.extent - start).constant, (x.extent - end).constant
    if first is None or last is None or not first > last:
        return None
    value, fact, states = last_frames(node, x, first - last, last, f"{node.outputs[0]}.last")
    if by != 1:
        value = onnx_op("Slice", value, const([0]), const([first - last]), const([x.axis]), const([by]))
        shape = (*fact.shape[: x.axis], Length.of(-((last - first) // by)), *fact.shape[x.axis + 1 :])
        fact = replace(fact, shape=shape)
    return as_outcome(node, [value], [fact], states)


def last_entries(node: Node, x: Stream, indices: Static | ShapeTensor) -> Outcome | None:
    """Frames of `x` by indices that all count from its end; None where they do not."""
    values = (
        indices.values
        if isinstance(indices, ShapeTensor)
        else None
        if indices.value is None
        else tuple(Length.of(int(v)) for v in indices.value.array.ravel())
    )
    if not values:
        return None
    back = [(-v).constant if v.constant is not None else (x.extent - v).constant for v in values]
    ends = [b for b in back if b is not None and b > 0]
    if len(ends) != len(back):
        return None
    far = max(ends)
    value, fact, states = last_frames(node, x, far - min(ends) + 1, min(ends) - 1, f"{node.outputs[0]}.last")
    picked = np.asarray([far - b for b in ends], np.int64).reshape([Length.of(d).constant or 0 for d in indices.shape])
    shape = (*x.shape[: x.axis], *(Length.of(d) for d in picked.shape), *x.shape[x.axis + 1 :])
    return as_outcome(
        node, [onnx_op("Gather", value, const(picked), axis=x.axis)], [replace(fact, shape=shape)], states
    )
