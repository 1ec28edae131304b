"""Models that were exported for one length, read anew for any."""

from pulsify_onnx.prepare.fixed_length.dynamic_length import DynamicLength, NoReading, make_length_dynamic
from pulsify_onnx.prepare.fixed_length.fixed_axes import dynamic, readings, settle
from pulsify_onnx.prepare.fixed_length.make_dynamic import MakeLengthDynamic
from pulsify_onnx.prepare.fixed_length.regroup import OTHER_LENGTH
from pulsify_onnx.prepare.fixed_length.trial_runs import checked, runnable

__all__ = [
    "OTHER_LENGTH",
    "DynamicLength",
    "MakeLengthDynamic",
    "NoReading",
    "checked",
    "dynamic",
    "make_length_dynamic",
    "readings",
    "runnable",
    "settle",
]
