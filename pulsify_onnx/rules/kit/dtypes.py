"""Which dtypes onnxruntime's selection takes, and what carries the others through it."""

from __future__ import annotations

import onnx_ir as ir

SELECTABLE = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.UINT8, ir.DataType.INT8}
"""What onnxruntime's Where takes; other values are cast on the way."""


def carrier(dtype: ir.DataType) -> ir.DataType:
    """A dtype that `Where` takes and that holds every value of `dtype`."""
    if dtype.is_floating_point():
        return ir.DataType.FLOAT
    return ir.DataType.INT32 if dtype in (ir.DataType.BOOL, ir.DataType.INT16, ir.DataType.UINT16) else ir.DataType.INT64
