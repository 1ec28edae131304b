"""The batch model that a stream must equal, made anew from the source and what the sidecar says of it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from pulsify_onnx.model.load import Source, load
from pulsify_onnx.prepare.fixed_length import make_length_dynamic, runnable
from pulsify_onnx.prepare.left_context import CutPast
from pulsify_onnx.prepare.passes import Prepared, run_passes
from pulsify_onnx.runtime.sidecar import Sidecar


def stream_axes(sidecar: Sidecar) -> dict[str, int]:
    """The stream axis by input."""
    return {i.name: i.axis for i in sidecar.stream_inputs}


def reread(model: str | Path | ir.Model | onnx.ModelProto, sidecar: Sidecar) -> Source:
    """The source, for any length and with the cut that the sidecar tells of."""
    axes = stream_axes(sidecar)
    source = load(model)
    if sidecar.fixed_length is not None:
        source = make_length_dynamic(
            source, axes, sidecar.fixed_length.frames, None, sidecar.fixed_length.readings
        ).source
    if sidecar.approximation is None:
        return source
    return run_passes(Prepared(source, axes), CutPast(sidecar.approximation.left_context)).source


def compared(model: str | Path | onnx.ModelProto, sidecar: Sidecar) -> str | Path | onnx.ModelProto:
    """The same as a model that runs; the given one where nothing of it is changed."""
    if sidecar.head is not None or (sidecar.fixed_length is None and sidecar.approximation is None):
        return model
    return runnable(reread(model, sidecar).model)
