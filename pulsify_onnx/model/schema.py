"""What onnx's own schemas say of an operator."""

from __future__ import annotations

from functools import lru_cache

import onnx

QUANTISED = {
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "QLinearAdd",
    "QLinearGlobalAveragePool",
}
"""Operators that round to integers."""


@lru_cache(maxsize=4096)
def since_version(op_type: str, opset: int, domain: str) -> int | None:
    """The version of the operator's schema in force at `opset`; None where onnx defines none."""
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return None


@lru_cache(maxsize=4096)
def has_attribute(op_type: str, opset: int, name: str, domain: str = "") -> bool:
    """Whether the operator's schema in force at `opset` has that attribute: axes, bounds and pads were some, and are
    inputs.
    """
    try:
        return name in onnx.defs.get_schema(op_type, opset, domain).attributes
    except onnx.defs.SchemaError:
        return False


def axes_are_input(op_type: str, opset: int) -> bool:
    """Whether the operator takes its axes as an input; as an attribute else."""
    return not has_attribute(op_type, opset, "axes")


@lru_cache(maxsize=4096)
def has_optional(op_type: str, opset: int, index: int, domain: str = "") -> bool:
    """Whether the operator's schema in force at `opset` has an input `index` that may be left out."""
    inputs = onnx.defs.get_schema(op_type, opset, domain).inputs
    return index < len(inputs) and inputs[index].option == onnx.defs.OpSchema.FormalParameterOption.Optional
