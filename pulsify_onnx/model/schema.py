"""What onnx's own schemas say of an operator."""

from __future__ import annotations

from functools import lru_cache

import onnx


@lru_cache(maxsize=4096)
def since_version(op_type: str, opset: int, domain: str) -> int | None:
    """The version of the operator's schema in force at `opset`; None where onnx defines none."""
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return None
