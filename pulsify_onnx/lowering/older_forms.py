"""Operators as older opsets have them, where the newer form is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.lowering.writer import Writer


def older(
    emit: Writer,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    any_pulse: Callable[[], ir.Value] | None,
) -> ir.Value | None:
    """An operator as opsets before 12 have it, where rules write the newer form; None where the newer one will do.

    `any_pulse`: of a graph for pulses of any size, a zero that is computed from the size of its pulse.
    """
    if op_type == "Slice" and emit.opset < 10 and len(inputs) > 1:
        names = ("starts", "ends", "axes", "steps")
        values = {
            n: v.const_value.numpy().tolist()
            for n, v in zip(names, inputs[1:])
            if v is not None and v.const_value is not None
        }
        if len(values) == len(inputs) - 1 and values.pop("steps", [1]) == [1] * len(values["starts"]):
            return emit.one("Slice", inputs[0], **values)
        return _picked_apart(emit, inputs)
    if (
        op_type == "Slice"
        and emit.opset == 10
        and any_pulse is not None
        and inputs[0] is not None
        and inputs[0].const_value is None
    ):
        # of constant bounds onnx infers a symbolic size to be as it was, and onnxruntime gives what has one size
        # one buffer
        x, start, end, *rest = inputs
        if end is not None and end.const_value is not None:
            return emit.one("Slice", x, start, emit.one("Add", end, any_pulse()), *rest)
    if op_type == "Range" and emit.opset < 11:  # from 0, by 1
        ones = emit.one(
            "ConstantOfShape", emit.one("Reshape", inputs[1], emit.ints(1)), value=ir.tensor(np.ones(1, np.int64))
        )
        return emit.one("Reshape", emit.one("NonZero", ones), emit.ints(-1))
    if op_type in ("Min", "Max") and emit.opset < 12 and len(inputs) == 2:
        a, b = inputs
        test = emit.one("Less", a, b)
        return emit.one("Where", test, a, b) if op_type == "Min" else emit.one("Where", test, b, a)
    if (
        op_type == "Pad"
        and emit.opset < 11
        and len(inputs) > 1
        and inputs[1] is not None
        and inputs[1].const_value is not None
    ):
        fill = (
            inputs[2].const_value.numpy().item()
            if len(inputs) > 2 and inputs[2] is not None and inputs[2].const_value is not None
            else 0.0
        )
        return emit.one("Pad", inputs[0], pads=inputs[1].const_value.numpy().tolist(), value=float(fill), **attributes)
    return None


def _picked_apart(emit: Writer, inputs: Sequence[ir.Value | None]) -> ir.Value:
    """A Slice whose bounds are computed, or whose step is not 1, as opsets before 10 have it: what it takes is
    gathered, axis by axis.
    """
    x, bounds = inputs[0], inputs[1:]
    steps = (
        bounds[3].const_value.numpy().tolist()
        if len(bounds) > 3 and bounds[3] is not None and bounds[3].const_value is not None
        else None
    )
    axes = bounds[2].const_value.numpy().tolist() if bounds[2] is not None and bounds[2].const_value is not None else []
    for k, axis in enumerate(axes):
        step = steps[k] if steps else 1
        size = emit.one("Gather", emit.one("Shape", x), emit.ints(axis), axis=0)
        start, end = (
            _bound(emit, emit.one("Gather", bound, emit.ints(k), axis=0) if len(axes) > 1 else bound, size, step < 0)
            for bound in bounds[:2]
        )
        length = emit.one("Sub", end, start) if step > 0 else emit.one("Sub", start, end)
        length = emit.one("Max", length, emit.ints(0))
        if abs(step) > 1:
            length = emit.one("Div", emit.one("Add", length, emit.ints(abs(step) - 1)), emit.ints(abs(step)))
        count = emit.one(
            "Range", emit.constant(np.asarray(0, np.int64)), length, emit.constant(np.asarray(1, np.int64))
        )
        x = emit.one(
            "Gather",
            x,
            emit.one("Add", start, count if step == 1 else emit.one("Mul", count, emit.ints(step))),
            axis=axis,
        )
    assert x is not None
    return x


def _bound(emit: Writer, bound: ir.Value | None, size: ir.Value, backwards: bool) -> ir.Value:
    """A start or end of a Slice as an index from the start, within what there is."""
    assert bound is not None
    index = emit.one("Where", emit.one("Less", bound, emit.ints(0)), emit.one("Add", bound, size), bound)
    last = emit.one("Sub", size, emit.ints(1)) if backwards else size
    return emit.one("Max", emit.one("Min", index, last), emit.ints(-1 if backwards else 0))
