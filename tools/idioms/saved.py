"""A network out of a file, checked as those of the grammar are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import helper

from .grammar import Input, Network, Sentence


def load(path: Path, axes: Mapping[str, int], seed: int) -> Network:
    """The model with its inputs as `axes` has them. Those that are not told stream along their last symbolic axis, if
    any.

    Rows are the first axis that is not time; a rate is what a dimension such as ``2*T`` says.
    """
    model = onnx.load(path)
    weights = {w.name for w in model.graph.initializer}
    inputs = [_input(v, axes) for v in model.graph.input if v.name not in weights]
    rows = [i.shape[i.row] for i in inputs if i.row is not None and i.axis is not None]
    coarse = any(n.op_type == "QuantizeLinear" for n in model.graph.node)
    return Network(Sentence(seed, batch=rows[0] if rows else 1), model, inputs, coarse)


def _input(value: onnx.ValueInfoProto, axes: Mapping[str, int]) -> Input:
    dims: list[int | str] = [
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in value.type.tensor_type.shape.dim
    ]
    free = [i for i, d in enumerate(dims) if isinstance(d, str)]
    axis = axes.get(value.name, free[-1] if len(dims) > 1 and free and free[-1] > 0 else None)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    whole = dtype.kind in "iu"
    rate = 1
    if axis is not None:
        first = str(dims[axis]).partition("*")[0]
        rate = int(first) if first.isdigit() else 1
        dims[axis] = "T"
    row = None if len(dims) < 2 else 1 if axis == 0 else 0
    return Input(value.name, dims, dtype, axis, rate, high=2 if whole else 0, row=row)
