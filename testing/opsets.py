"""Nodes as older opsets have them: what became an input later is an attribute there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

MOVED: dict[str, tuple[int, tuple[str, ...]]] = {
    "Squeeze": (13, ("axes",)),
    "Unsqueeze": (13, ("axes",)),
    "ReduceSum": (13, ("axes",)),
    "Split": (13, ("split",)),
    "Pad": (11, ("pads", "value")),
    "Slice": (10, ("starts", "ends", "axes", "steps")),
    "Clip": (11, ("min", "max")),
}
"""Operators whose inputs after the first were attributes of these names before an opset."""

NUMBERS = {"Greater": 9, "Less": 9, "Max": 12, "Min": 12, "Where": 9, "Sub": 7, "Div": 7}
"""Opsets from which these take integers as other nodes here make them."""


class NotYet(Exception):
    """The opset has no such node."""


def as_of(
    opset: int, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any], constants: Mapping[str, TensorProto]
) -> tuple[str, list[str], dict[str, Any]]:
    """The node as `opset` has it: its operator, inputs and attributes. Raises `NotYet` where it cannot be said."""
    kept, found = list(inputs), dict(attributes)
    if opset < NUMBERS.get(op_type, 0):
        raise NotYet
    before, names = MOVED.get(op_type, (0, ()))
    if opset < before:
        for name, given in zip(names, kept[1:]):
            if given not in constants:
                raise NotYet
            value = numpy_helper.to_array(constants[given])
            found[name] = value.tolist()
        kept = kept[:1]
        if set(found.pop("steps", [1])) != {1}:
            raise NotYet
    if op_type == "Resize" and opset < 11:
        op_type, kept, found = _upsampled(opset, kept, found, constants)
    elif op_type == "Resize" and opset < 13:
        kept[1] = kept[1] or kept[2]  # a region must be there, though nothing reads it
    return op_type, kept, _known(opset, op_type, found)


def _upsampled(
    opset: int, inputs: list[str], attributes: dict[str, Any], constants: Mapping[str, TensorProto]
) -> tuple[str, list[str], dict[str, Any]]:
    """A `Resize` by factors before it had coordinates of its own: frame `i` is at `i / factor`."""
    if (
        len(inputs) != 3
        or attributes.get("coordinate_transformation_mode") != "asymmetric"
        or attributes["mode"] == "cubic"
    ):
        raise NotYet
    mode = {"mode": attributes["mode"]}
    if opset == 10:
        return "Resize", [inputs[0], inputs[2]], mode
    if opset == 9:
        return "Upsample", [inputs[0], inputs[2]], mode
    return "Upsample", inputs[:1], {**mode, "scales": np.asarray(numpy_helper.to_array(constants[inputs[2]])).tolist()}


def _known(opset: int, op_type: str, attributes: dict[str, Any]) -> dict[str, Any]:
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        raise NotYet from None
    if schema.since_version > opset or any(
        value for name, value in attributes.items() if name not in schema.attributes
    ):
        raise NotYet
    return {name: value for name, value in attributes.items() if name in schema.attributes}
