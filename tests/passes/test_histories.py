"""What is remembered, of plans made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.delay import Delay, Timing
from pulsify_onnx.algebra.facts import Mirror, QueryKey, Stream
from pulsify_onnx.algebra.hidden import TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Position, QueryKeyRead, Step
from pulsify_onnx.passes.histories import Histories, History, behind, mirrors, on_arrival
from pulsify_onnx.passes.schedule import schedule
from testing.plans import ONE, T, frame, masked, op, plan, read, step, stream

LATE = stream("x", delay=Delay.of(2))
ARRIVAL = TimedMask(2, T + 2, frame(), start=True, end=False, arrival=True)


def histories(
    *steps: Step, x: Stream | None = None, outputs: tuple[str, ...] = ("y",), ends: bool = False
) -> Histories:
    return Histories(schedule(plan(steps, outputs, x), Timing(1, ends)))


def test_one_history_for_a_wire_as_long_as_its_greediest_reader() -> None:
    found = histories(
        step("y", op("Add", read("x", 3), read("x", 5, 5))),
        step("z", read("x", 4)),
        step("u", op("Neg", read("x", -2))),
    )
    assert [*found] == [History("x", None, 5)] and found.of("x", None) == 5 and found.of("y", None) == 0


def test_nothing_is_remembered_of_what_is_read_in_its_pulse() -> None:
    assert [*histories(step("y", op("Neg", read("x"))), step("z", op("Neg", read("x", -1))))] == []


def test_states_read_too() -> None:
    from pulsify_onnx.algebra.plan import State

    kept = State("kept", ir.DataType.FLOAT, (Length.of(1),), op("Sum", read("x", 6)), "test")
    assert [*histories(step("y", read("x"), states=[kept]))] == [History("x", None, 6)]


def test_a_history_that_is_masked_on_arrival_serves_plain_readers() -> None:
    """Of frames that are not real nobody reads the plain wire: what is masked away of it is nothing."""
    found = histories(step("y", op("Add", read("x", 3, mask=masked(LATE, frame())), read("x", 5))), x=LATE)
    assert [*found] == [History("x", ARRIVAL, 5)]
    assert found.read_from("x", None, 5) == ("x", ARRIVAL) == found.read_from("x", ARRIVAL, 3)
    assert found.read_from("x", None, 0) == ("x", None), "this pulse is there as it is"


@pytest.mark.parametrize("hidden", [{"first": 1}, {"first": 0, "end": T - 1}])
def test_a_history_that_hides_real_frames_serves_no_plain_reader(hidden: dict[str, Any]) -> None:
    found = histories(
        step("y", op("Add", read("x", 3, mask=masked(LATE, frame(), **hidden)), read("x", 5))), x=LATE, ends=True
    )
    masks = {h.mask for h in found}
    assert len(masks) == 2 and None in masks and found.read_from("x", None, 5) == ("x", None)


def test_other_borders_are_laid_on_the_window() -> None:
    """Only zeros are remembered; the reader of another border takes the history that is there, and it grows for it."""
    found = histories(
        step("y", op("Add", read("x", 3, mask=masked(LATE, frame())), read("x", 4, mask=masked(LATE, frame(7))))),
        x=LATE,
    )
    assert [*found] == [History("x", ARRIVAL, 4)] and found.read_from("x", None, 4) == ("x", ARRIVAL)


def test_a_window_that_is_masked_where_it_is_read_remembers_the_plain_wire() -> None:
    found = histories(step("y", read("x", 3, mask=masked(stream("x"), frame(), end=T - 2))), ends=True)
    assert [*found] == [History("x", None, 3)]


def test_mirrored_windows_look_further_back() -> None:
    mask = masked(stream("x"), Mirror(False), end=T - 2, sealed=True, reach=4)
    windows = [replace(read("x", back, mask=mask)) for back in (3, -1)]
    made = schedule(plan([step("y", op("Add", *windows))]), Timing(1, True))
    (expr,) = made.steps[0].exprs
    first, second = expr.inputs  # type: ignore[union-attr]
    assert mirrors(first) and on_arrival(first) is None and not mirrors(read("x"))
    assert behind(first, 3) == 7 and behind(second, -1) == 4 and behind(read("x"), -1) == 0
    assert [*Histories(made)] == [History("x", None, 7)]


def test_what_is_computed_for_its_readers_asks_from_there() -> None:
    deferred = replace(step("d", op("Neg", read("x", 2))), deferred=True)
    found = histories(deferred, step("y", op("Abs", read("d", 3))), step("z", op("Abs", read("d", 4))))
    assert found.lazy("d") and not found.lazy("x") and [*found] == [History("x", None, 6)]


def test_positions_are_not_remembered() -> None:
    found = histories(
        step("p", Position(ONE), stream("p", positional=True)), step("y", op("Add", read("p", 5), read("x")))
    )
    assert found.lazy("p") and [*found] == []


def test_pairs_remember_both_of_their_sides() -> None:
    pair = QueryKey("p", ir.DataType.FLOAT, (Length.of(1), T, T), (1, 2), ONE)
    queries, keys = read("x"), replace(read("k"), role=1)
    found = histories(
        step("k", op("Neg", read("x"))),
        step("p", op("Mul", queries, keys), pair),
        step("y", op("Sum", QueryKeyRead("p", (1, 0), (4, 4)))),
        step("z", op("Sum", QueryKeyRead("p", (2, 0), (5, 5), swapped=True))),
    )
    assert found.lazy("p") and {(h.wire, h.frames) for h in found} == {("x", 5), ("k", 4)}


def test_plans_are_scheduled_first() -> None:
    with pytest.raises(AssertionError, match="not scheduled"):
        Histories(plan([step("y", read("x", 3, mask=masked(LATE, frame())))], x=LATE))
