"""What the table of onnxruntime's operators says, asked of onnxruntime."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import helper

from pulsify_onnx.errors import InvalidModel
from pulsify_onnx.ort import CHOSEN, carrier, session

TYPES = [
    t
    for t in ir.DataType
    if t.name
    in [
        "FLOAT",
        "DOUBLE",
        "FLOAT16",
        "BFLOAT16",
        "BOOL",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "STRING",
    ]
]


def where(dtype: ir.DataType) -> bytes:
    """A Where of that type."""
    values = [helper.make_tensor_value_info(name, int(dtype), [2]) for name in "aby"]
    flag = helper.make_tensor_value_info("flag", int(ir.DataType.BOOL), [2])
    graph = helper.make_graph(
        [helper.make_node("Where", ["flag", "a", "b"], ["y"])], "where", [flag, *values[:2]], values[2:]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.name)
def test_what_where_takes(dtype: ir.DataType) -> None:
    try:
        session(where(dtype), severity=4)
        taken = True
    except InvalidModel:
        taken = False
    assert taken == (dtype in CHOSEN) == (carrier(dtype) == dtype)
    assert carrier(dtype) in CHOSEN and (dtype == ir.DataType.STRING or carrier(dtype).itemsize >= dtype.itemsize)
