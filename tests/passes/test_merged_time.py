"""Streams whose time is merged with other axes are set apart where a reader wants other frames than those of the
pulse.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.facts import ALONE, Stream
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dims, Frames, Merged, Window
from pulsify_onnx.arrays import Const
from pulsify_onnx.passes.merged_time import set_apart
from pulsify_onnx.passes.schedule import schedule
from testing.plans import ONE, T, masked, op, plan, read, step

TWO, THREE = Length.of(2), Length.of(3)
MERGED = Stream("x", ir.DataType.FLOAT, (T, Length.of(4)), 0, ONE, source="x", around=(TWO, THREE))
"""[2*T*3, 4]."""


def test_frames_of_the_pulse_are_read_as_they_are() -> None:
    made = plan([step("y", op("Neg", read("x")))], x=MERGED)
    assert set_apart(made) == made


def test_plain_streams_are_left_alone() -> None:
    made = plan([step("y", op("Neg", read("x", 3, 2)))])
    assert set_apart(made) == made


def test_other_frames_are_read_from_rows() -> None:
    made = set_apart(plan([step("y", op("Neg", read("x", 3, 1))), step("z", op("Abs", read("x", 1)))], x=MERGED))
    apart, y, z = made.steps
    row = made.wires["x#apart"]
    assert row == Stream("x#apart", ir.DataType.FLOAT, (TWO, T, THREE, Length.of(4)), 1, ONE, source="x", around=ALONE)
    assert apart.exprs == (op("Reshape", read("x"), Dims((2, Frames(ONE), 3, 4))),), "once for both readers"
    assert y.exprs == (op("Neg", op("Reshape", read("x#apart", 3, 1), Dims((Merged(TWO, Frames(ONE, 1), THREE), 4)))),)
    assert z.exprs == (op("Abs", op("Reshape", read("x#apart", 1), Dims((Merged(TWO, Frames(ONE), THREE), 4)))),)


def test_axes_of_one_are_none() -> None:
    made = set_apart(plan([step("y", read("x", 3))], x=replace(MERGED, around=(Length.of(1), THREE))))
    row = made.wires["x#apart"]
    assert isinstance(row, Stream) and row.shape == (T, THREE, Length.of(4)) and row.axis == 0


def test_borders_are_spread_over_the_axes_again() -> None:
    border = Const(np.arange(4, dtype=np.float32).reshape(1, 4))
    made = schedule(plan([step("y", read("x", 3, mask=masked(MERGED, border)))], x=MERGED), Timing(1))
    (window,) = (e for e in made.steps[1].exprs[0].inputs if isinstance(e, Window))  # type: ignore[union-attr]
    assert isinstance(window.mask, TimedMask) and not isinstance(window.mask, Mask)
    assert isinstance(window.mask.border, Const) and window.mask.border.array.shape == (1, 1, 1, 4)
