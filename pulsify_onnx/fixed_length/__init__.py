"""Models that were exported for one length, read anew for any."""

from pulsify_onnx.fixed_length.regroup import OTHER
from pulsify_onnx.fixed_length.relax import Relaxed, checked, dynamic, implied, readings, relax, runnable, settle

__all__ = ["OTHER", "Relaxed", "checked", "dynamic", "implied", "readings", "relax", "runnable", "settle"]
