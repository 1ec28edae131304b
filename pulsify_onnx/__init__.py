"""pulsify-onnx: turns a batch ONNX model into a streaming one, exactly."""

from pulsify_onnx.version import __version__

__all__ = ["__version__"]
