"""Sliding classifiers: models of clips as a streamed body and a head that runs on the last window."""

from pulsify_onnx.convert.window_head.joined import attach_head, pulsed
from pulsify_onnx.convert.window_head.reference import SlidingBatch

__all__ = ["SlidingBatch", "attach_head", "pulsed"]
