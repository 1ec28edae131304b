"""Models that were exported for one length, read anew for any."""

from pulsify_onnx.prepare.fixed_length.make_dynamic import MakeLengthDynamic
from pulsify_onnx.prepare.fixed_length.regroup import OTHER
from pulsify_onnx.prepare.fixed_length.relax import NoReading, Relaxed, checked, dynamic, readings, relax, runnable, settle

__all__ = ["OTHER", "MakeLengthDynamic", "NoReading", "Relaxed", "checked", "dynamic", "readings", "relax", "runnable", "settle"]
