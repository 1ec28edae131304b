"""Sliding classifiers: models of clips as a streamed body and a head that runs on the last window."""

from pulsify_onnx.sliding.halves import Halves, halve
from pulsify_onnx.sliding.joined import joined, pulsed
from pulsify_onnx.sliding.reference import SlidingBatch

__all__ = ["Halves", "SlidingBatch", "halve", "joined", "pulsed"]
