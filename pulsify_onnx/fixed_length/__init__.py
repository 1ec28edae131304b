"""Models that were exported for one length, read anew for any."""

from pulsify_onnx.fixed_length.relax import Relaxed, checked, dynamic, implied, readings, relax, runnable, settle

__all__ = ["Relaxed", "checked", "dynamic", "implied", "readings", "relax", "runnable", "settle"]
