"""onnxruntime: how sessions are made, and what its operators do not take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from pulsify_onnx.errors import InvalidModel

CHOSEN = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.UINT8,
          ir.DataType.UINT32, ir.DataType.STRING}
"""Types that Where takes."""


def carrier(dtype: ir.DataType) -> ir.DataType:
    """A type that Where takes and that holds every value of `dtype`: `dtype` itself where it can be."""
    if dtype in CHOSEN:
        return dtype
    if dtype.is_floating_point():
        return ir.DataType.FLOAT
    return ir.DataType.INT32 if dtype in (ir.DataType.BOOL, ir.DataType.INT16, ir.DataType.UINT16) else ir.DataType.INT64


def session(model: str | Path | bytes, severity: int = 3, plain: bool = False, kept: bool = False,
            without: Sequence[str] = ()) -> ort.InferenceSession:
    """A session on one CPU thread; a `plain` one leaves the graph as it is, a `kept` one keeps no memory that it computed in; `without` some
    of onnxruntime's optimizers. Raises `InvalidModel`."""
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
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"],
                                    disabled_optimizers=list(without))
    except Exception as problem:
        what = "the model" if isinstance(model, bytes) else str(model)
        raise InvalidModel(f"{what}: onnxruntime cannot load it ({' '.join(str(problem).split())[:300]})") from problem
