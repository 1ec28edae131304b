"""Pads with frames of the stream itself: a border that mirrors them."""

from __future__ import annotations

from pulsify_onnx.algebra.facts import Mirror, Padding
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.ordering import holds
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import refuse

MODES = {"edge": Mirror(edge=True), "reflect": Mirror(edge=False)}


def border_of(mode: str, fill: Const, before: int, after: Length) -> Padding:
    """The border that a Pad of `mode` puts along the stream; refuses what needs the other end of it."""
    if mode == "constant":
        return fill
    if mode not in MODES:
        refuse(
            f"it pads with frames from the other end of the stream (mode {mode})",
            hint="pad with a constant, or in mode edge or reflect",
        )
    if (before > 0 and not holds(after, -1, 1)) or (before < 0 and not holds(after, 1, -1)):
        refuse(
            f"it crops one end of the stream and pads the other in mode {mode}", hint="crop by a Slice before padding"
        )
    return MODES[mode]
