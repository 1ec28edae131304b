"""onnxruntime: how sessions are made, and what its operators do not take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from pulsify_onnx.errors import InvalidModel

CHOSEN = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.INT64,
    ir.DataType.INT32,
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.UINT32,
    ir.DataType.STRING,
}
"""Types that Where takes."""


ALL_OUTPUTS = {"If", "Loop", "Scan", "Split"}
"""Operators every output of which must have a name, read or not."""

BY_ZERO = {"Div", "Mod"}
"""Operators that end the process where a whole number is divided by 0."""

ROUNDED = {"MaxPool", "AveragePool", "LpPool", "ConvTranspose", "Resize", "Upsample"}
"""Operators whose sizes are rounded otherwise than by onnx's inference: the last window of a ceil_mode, output_padding
with auto_pad, scales."""

SHORT_KERNELS = {"Conv": -2, "ConvInteger": -2, "QLinearConv": -2, "LpPool": -1}
"""How much shorter than their stride windows may be to be padded by auto_pad SAME as the standard says; those of other
operators, not at all."""

UNSOUND = {"MaxPool": "Pad_Fusion"}
"""Optimizers that change what an operator gives: a Pad is fused into a MaxPool, which pads with -inf, whatever its
value.
"""


def unsound(operators: Iterable[str]) -> tuple[str, ...]:
    """The optimizers that change what a model of these operators gives."""
    return tuple(sorted({UNSOUND[name] for name in operators if name in UNSOUND}))


def carrier(dtype: ir.DataType) -> ir.DataType:
    """A type that Where takes and that holds every value of `dtype`: `dtype` itself where it can be."""
    if dtype in CHOSEN:
        return dtype
    if dtype.is_floating_point():
        return ir.DataType.FLOAT
    return (
        ir.DataType.INT32 if dtype in (ir.DataType.BOOL, ir.DataType.INT16, ir.DataType.UINT16) else ir.DataType.INT64
    )


def session(
    model: str | Path | bytes, severity: int = 3, plain: bool = False, kept: bool = False, without: Sequence[str] = ()
) -> ort.InferenceSession:
    """A session on one CPU thread; a `plain` one leaves the graph as it is, a `kept` one keeps no memory that it
    computed in; `without` some of onnxruntime's optimizers. Raises `InvalidModel`.
    """
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise InvalidModel(f"{model}: not a file" if Path(model).exists() else f"{model}: no such file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = severity
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not kept
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(without),
        )
    except Exception as problem:
        what = "the model" if isinstance(model, bytes) else str(model)
        raise InvalidModel(f"{what}: onnxruntime cannot load it ({' '.join(str(problem).split())[:300]})") from problem
