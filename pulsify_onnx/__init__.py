"""pulsify-onnx: turns a batch ONNX model into a streaming one, exactly.

    pulsed = pulsify("model.onnx", pulse=16, end_of_stream=True)
    assert verify("model.onnx", pulsed).ok
    stream = StreamSession(pulsed)

Everything here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pulsify_onnx.errors import (
    AmbiguousAxis,
    Blocker,
    CannotStream,
    InvalidModel,
    PulseDoesNotFit,
    PulsifyError,
    UsageError,
    VerificationFailed,
)
from pulsify_onnx.version import __version__

if TYPE_CHECKING:
    from pulsify_onnx.api import Analysis, ConvertOptions, PulsedModel, Report, analyze, inspect, pulsify, verify
    from pulsify_onnx.runtime.batch import BatchSession
    from pulsify_onnx.runtime.runner import StreamSession
    from pulsify_onnx.verification.check import Verification

__all__ = [
    "AmbiguousAxis",
    "Analysis",
    "BatchSession",
    "Blocker",
    "CannotStream",
    "ConvertOptions",
    "InvalidModel",
    "PulseDoesNotFit",
    "PulsedModel",
    "PulsifyError",
    "Report",
    "StreamSession",
    "UsageError",
    "Verification",
    "VerificationFailed",
    "__version__",
    "analyze",
    "inspect",
    "pulsify",
    "verify",
]

_LAZY = {
    "Analysis": "api",
    "ConvertOptions": "api",
    "PulsedModel": "api",
    "Report": "api",
    "analyze": "api",
    "inspect": "api",
    "pulsify": "api",
    "verify": "api",
    "StreamSession": "runtime.runner",
    "BatchSession": "runtime.batch",
    "Verification": "verification.check",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
