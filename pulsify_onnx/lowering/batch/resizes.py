"""How a Resize keeps the rows of a batch apart, between which onnxruntime would interpolate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.arrays import Array
from pulsify_onnx.lowering.batch.layouts import Layout
from pulsify_onnx.lowering.batch.operators import attribute, constant
from pulsify_onnx.lowering.batch.placement import Placement
from pulsify_onnx.lowering.emitter import Emitter


def resized(
    plain: Emitter,
    placement: Placement,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    layouts: Sequence[Layout | None],
    attributes: Mapping[str, Any],
    name: str,
) -> ir.Value | None:
    """A Resize between whose rows onnxruntime would interpolate, or to sizes that are computed; None for others."""
    x, sizes, scales = layouts[0], inputs[3] if len(inputs) > 3 else None, _scales_of(inputs, attributes)
    if x is None or inputs[0] is None or x.rank is None or x.rows < 0 or x.lifted:
        return None
    if (
        placement.sizes.get(id(sizes)) != x.rows
        if sizes is not None
        else scales is None or scales.size != x.rank or scales[x.rows] != 1
    ):
        return None
    rows, rank, wanted = x.rows, x.rank, None if sizes is not None or scales is None else [float(f) for f in scales]
    if not _interpolated(attribute(attributes, "mode", "nearest"), rank, rows):
        if (
            rank > 3
            and attribute(attributes, "mode", "nearest") not in ("nearest", b"nearest")
            and _transposed(inputs[0])
        ):
            # onnxruntime moves a Transpose to behind a Resize that can't do what it is left with
            return placement.place(
                plain.one(op_type, plain.fenced(inputs[0]), *inputs[1:], node_name=name, **attributes), x
            )
        return None if sizes is None else placement.place(plain.one(op_type, *inputs, node_name=name, **attributes), x)
    return placement.place(plain.resized_apart(op_type, inputs, wanted, rows, rank, node_name=name, **attributes), x)


def _interpolated(mode: str | bytes, rank: int, axis: int) -> bool:
    """Whether onnxruntime may interpolate along an `axis` that a Resize leaves at its size: by weights of 0, which
    spread what is no number.

    Linear and cubic modes do so along all axes of up to three, and else along those that come after the batch and the
    channels.
    """
    return mode not in ("nearest", b"nearest") and (rank < 4 or axis > 0)


def _transposed(value: ir.Value | None) -> bool:
    """Whether a Transpose that the source does not have makes `value`, but for what onnxruntime moves one through."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Transpose", "Cast", "DequantizeLinear", "Identity", "Slice"):
        return False
    return _transposed(node.inputs[0]) if node.op_type != "Transpose" else (node.name or "").startswith("pulsify/")


def _scales_of(inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> Array | None:
    """The scales of a Resize or Upsample; None where they are not known."""
    index = 2 if len(inputs) > 2 else 1
    return constant(inputs[index]) if index < len(inputs) else np.asarray(attribute(attributes, "scales", ()))
