"""Models that were exported for one length, read anew for any."""

from pulsify_onnx.prepare.fixed_length.export import READINGS
from pulsify_onnx.prepare.fixed_length.regroup import OTHER
from pulsify_onnx.prepare.fixed_length.relax import NoReading, Relaxed, checked, dynamic, implied, readings, relax, runnable, settle

__all__ = ["OTHER", "READINGS", "NoReading", "Relaxed", "checked", "dynamic", "implied", "readings", "relax", "runnable", "settle"]
