"""The batch model that a stream must equal, made anew from the source and what the sidecar says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from pulsify_onnx.model.load import Source, load
from pulsify_onnx.prepare.fixed_length import relax, runnable
from pulsify_onnx.prepare.left_context import CutPast
from pulsify_onnx.prepare.passes import Prepared, run


def stream_axes(spec: Mapping[str, Any]) -> dict[str, int]:
    """The stream axis by input."""
    return {i["name"]: i["axis"] for i in spec["inputs"] if i["kind"] == "stream"}


def reread(model: str | Path | ir.Model | onnx.ModelProto, spec: Mapping[str, Any]) -> Source:
    """The source, for any length and with the cut that the sidecar tells of."""
    axes = stream_axes(spec)
    source = load(model)
    if spec.get("fixed_length") is not None:
        source = relax(source, axes, spec["fixed_length"]["frames"], None, spec["fixed_length"].get("readings")).source
    if spec.get("approximation") is None:
        return source
    return run(Prepared(source, axes), CutPast(spec["approximation"]["left_context"])).source


def compared(model: str | Path | onnx.ModelProto, spec: Mapping[str, Any]) -> str | Path | onnx.ModelProto:
    """The same as a model that runs; the given one where nothing of it is changed."""
    if "head" in spec or spec.get("fixed_length") is None and spec.get("approximation") is None:
        return model
    return runnable(reread(model, spec).model)
