"""The schedule on plans made by hand: least delays, masks at a time, what depends on them, and copies."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.bounds import Known
from pulsify_onnx.algebra.delay import AtLeast, Delay, Timing, time
from pulsify_onnx.algebra.facts import Mirror, PaddingFrames, Running, Stream, Wait
from pulsify_onnx.algebra.hidden import TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import (
    Dims,
    Frames,
    Merged,
    Number,
    Past,
    Position,
    QueryKeyRead,
    Requirement,
    Start,
    State,
    Step,
    When,
    Window,
)
from pulsify_onnx.algebra.plan import Test as Asked
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker
from pulsify_onnx.passes.schedule import schedule
from testing.plans import ONE, T, frame, masked, op, plan, read, step, stream

FOURS = time(Known(T.floordiv(4) * 4, ONE), AtLeast(Delay()))
"""0 without an end; with one 3, 2 or 0 as pulses are of 1, 2 or 4 frames."""

ENDLESS, ENDING = Timing(1), Timing(1, True)


def scheduled(expr: Any, timing: Timing, x: Stream | None = None, **more: Any) -> Step:
    """The step of ``y = expr`` at a time."""
    (found,) = schedule(plan([step("y", expr, **more)], x=x), timing).steps
    return found


def window_of(found: Step) -> Window:
    (expr,) = found.exprs
    assert isinstance(expr, Window)
    return expr


def mask_at(
    timing: Timing, border: Any = None, x: Stream | None = None, back: Any = 0, **more: Any
) -> TimedMask | None:
    """What becomes of a mask on both sides of x."""
    x = x or stream("x")
    mask = window_of(
        scheduled(read("x", back, mask=masked(x, border if border is not None else frame(), **more)), timing, x)
    ).mask
    assert mask is None or isinstance(mask, TimedMask)
    return mask


def test_everything_becomes_a_number() -> None:
    late = FOURS + 1
    exprs = (
        read("x", late, FOURS),
        Position(ONE, late, FOURS),
        Start(ONE, late),
        Number(late),
        QueryKeyRead("p", (late, FOURS), (0, late)),
        Dims((2, Frames(ONE, late), T, Merged(Length.of(2), Frames(ONE, late), Length.of(3)))),
    )
    found = scheduled(op("Test", *exprs), Timing(2, True)).exprs[0]
    assert [*found.inputs] == [  # type: ignore[union-attr]
        Window("x", 3, Frames(ONE, 2)),
        Position(ONE, 3, 2),
        Start(ONE, 3),
        Const(found.inputs[3].array),
        QueryKeyRead("p", (3, 2), (0, 3)),  # type: ignore[union-attr]
        Dims((2, Frames(ONE, 3), T, Merged(Length.of(2), Frames(ONE, 3), Length.of(3)))),
    ]
    assert found.inputs[3].array.tolist() == [3]  # type: ignore[union-attr]


def test_facts_have_their_delays() -> None:
    made = plan([step("y", read("x", FOURS, mask=masked(stream("x"), frame(1))), stream("y", delay=FOURS))])
    for timing, delay in ((Timing(1), 0), (Timing(1, True), 3), (Timing(2, True), 2), (Timing(4, True), 0)):
        found = schedule(made, timing)
        assert found.timing == timing and found.ends == timing.end_of_stream
        assert [
            f.delay for f in (found.facts["y"], found.wires["y"], found.steps[0].facts[0]) if isinstance(f, Stream)
        ] == [Delay.of(delay)] * 3


def test_the_plan_itself_stays_for_another_time() -> None:
    made = plan([step("y", read("x", FOURS + 1))])
    before = repr(made)
    assert [window_of(schedule(made, Timing(k, True)).steps[0]).back for k in (1, 4, 1)] == [4, 1, 4] and repr(
        made
    ) == before


@pytest.mark.parametrize(
    "timing, late, ends",
    [(ENDLESS, False, False), (ENDING, True, True), (Timing(4), False, False), (Timing(4, True), False, True)],
)
def test_what_depends_on_the_time_is_decided(timing: Timing, late: bool, ends: bool) -> None:
    for test, holds in (
        (Asked(late=FOURS), late),
        (Asked(ends=True), ends),
        (Asked(ends=True, late=FOURS), ends or late),
        (Asked(), False),
    ):
        found = scheduled(op("Neg", When(test, op("Abs", read("x")), read("x"))), timing)
        assert found.exprs == (op("Neg", op("Abs", read("x")) if holds else read("x")),)


def test_states_are_there_where_they_are_needed() -> None:
    kept = State("kept", ir.DataType.FLOAT, (Length.of(1),), Past("kept"), "test")
    some = State(
        "some",
        ir.DataType.FLOAT,
        (Length.of(1),),
        When(Asked(ends=True), Past("some"), Past("kept")),
        "test",
        Asked(late=FOURS),
    )
    assert [s.name for s in scheduled(read("x"), ENDLESS, states=[kept, some]).states] == ["kept"]
    found = scheduled(read("x"), ENDING, states=[kept, some]).states
    assert found == (kept, replace(some, next=Past("some"), test=None))


def test_what_is_required_and_not_there_is_a_blocker() -> None:
    blame = Blocker("other", "Softmax", "", "do it otherwise")
    needs = (
        Requirement(Asked(late=FOURS), "it comes {} frames late", "hint"),
        Requirement(Asked(ends=True), "it may end", "ends", blame),
    )
    made = plan([step("y", read("x"), requires=needs), step("z", read("x"), requires=needs[1:])])
    assert schedule(made, ENDLESS).blockers == ()
    found = schedule(made, ENDING)
    assert found.blockers == (
        Blocker("y", "Test", "it comes 3 frames late", "hint"),
        replace(blame, reason="it may end"),
    )
    assert not any(s.requires for s in found.steps)
    assert schedule(made, Timing(4, True)).blockers == (replace(blame, reason="it may end"),)


def test_running_values_are_exact_where_all_frames_have_come() -> None:
    def exact(timing: Timing, extent: Length = T, delay: Any = 0, ending: int = 0) -> bool:
        waits = (Wait(extent, ONE, Delay.of(delay), Fraction(ending)),)
        fact = schedule(
            plan([step("y", op("Sum", read("x")), Running("y", ir.DataType.FLOAT, (), waits))]), timing
        ).facts["y"]
        assert isinstance(fact, Running)
        return fact.exact

    assert exact(ENDLESS) and not exact(ENDLESS, delay=1) and exact(ENDLESS, T - 1, 1) and not exact(ENDLESS, T + 1)
    assert not exact(ENDLESS, ending=1) and exact(ENDLESS, T - 1, 1, ending=1)
    assert exact(ENDLESS, T.floordiv(4) * 4, FOURS) is False and exact(Timing(4), T.floordiv(4) * 4, FOURS)


# masks


def test_frames_before_the_first_are_masked_where_something_is_there() -> None:
    assert mask_at(ENDLESS, first=0) is None, "histories begin with zeros"
    late = mask_at(ENDLESS, x=stream("x", delay=Delay.of(2)), back=3)
    assert late == TimedMask(2, T + 2, frame(), True, False, True)
    early = stream("x", delay=Delay.of(-2))
    assert mask_at(ENDLESS, x=early, first=2, end=T + 2) is None, "the first that comes is the first that is real"
    assert mask_at(ENDLESS, x=early, first=3, end=T + 2) == TimedMask(1, T, frame(), True, False, True)
    for why in (
        {"computed": True},
        {"border": frame(1)},
        {"border": Mirror(True), "sealed": True},
        {"border": PaddingFrames(frame(1)), "sealed": True},
    ):
        found = mask_at(ENDLESS, **why)
        assert found is not None and found.start and found.low == 0, why
    assert mask_at(ENDLESS, frame(1), sealed=True) is None
    assert mask_at(ENDLESS, frame(1), before=False) is None


def test_a_guard_hides_what_comes_before_the_stream() -> None:
    assert mask_at(ENDLESS, guard=True) is None
    assert mask_at(ENDLESS, guard=True, back=1) == TimedMask(0, T, frame(), True, False, True)


def test_frames_after_the_last_are_masked_with_an_end() -> None:
    assert mask_at(ENDING) == TimedMask(0, T, frame(), False, True, True)
    assert mask_at(ENDING, after=False) is None
    assert mask_at(ENDING, end=T - 2) == TimedMask(0, T - 2, frame(), False, True, False), (
        "a frame that came may turn out to be none: nothing to remember"
    )
    assert mask_at(ENDING, x=stream("x", delay=Delay.of(2)), end=T - 2) == TimedMask(2, T, frame(), True, True, True)
    assert mask_at(ENDING, Mirror(False), sealed=True, reach=4) == TimedMask(0, T, Mirror(False), True, True, False, 4)
    found = mask_at(ENDLESS, Mirror(False), sealed=True, reach=4)
    assert found is not None and found.reach == 0 and not found.end


def test_masks_follow_the_pulse() -> None:
    x = stream("x", delay=FOURS)
    assert mask_at(Timing(1, True), x=x) == TimedMask(3, T + 3, frame(), True, True, True)
    assert mask_at(Timing(2, True), x=x) == TimedMask(2, T + 2, frame(), True, True, True)
    assert (
        mask_at(Timing(4, True), x=x) == TimedMask(0, T, frame(), False, True, True) and mask_at(Timing(4), x=x) is None
    )


def test_infinite_borders_end_where_the_border_does() -> None:
    found = mask_at(ENDING, frame(float("-inf")), x=stream("x", delay=Delay.of(1)), first=2, end=T + 2, infinite=T + 3)
    assert found is not None and found.within == (1, T + 4) and found.low == 3 and not found.arrival


def test_a_reader_hides_only_what_is_known_to_be_no_frame() -> None:
    assert mask_at(ENDING, end=T - 2, reader=Delay.of(0)) is None
    found = mask_at(ENDING, end=T - 2, reader=Delay.of(2))
    assert found is not None and found.end and found.start and found.high == T - 2


# copies


def test_steps_that_only_repeat_a_wire_are_left_out() -> None:
    copied = step("x#solid", read("x"), stream("x#solid"))
    made = plan(
        [
            copied,
            step("x#solid#early", read("x#solid"), stream("x#solid#early")),
            step("y", op("Neg", read("x#solid#early", 2))),
        ],
        facts={"same": stream("x#solid#early")},
    )
    found = schedule(made, ENDLESS)
    assert [s.wires for s in found.steps] == [("y",)] and found.steps[0].exprs == (op("Neg", read("x", 2)),)
    assert set(found.wires) == {"x", "y"} and found.facts["same"].wire == "x"


@pytest.mark.parametrize(
    "expr", [read("x", 1), read("x", 0, 1), read("x", mask=masked(stream("x"), frame(1))), op("Neg", read("x"))]
)
def test_steps_that_do_more_stay(expr: Any) -> None:
    found = schedule(plan([step("x#solid", expr, stream("x#solid")), step("y", op("Neg", read("x#solid")))]), ENDLESS)
    assert [s.wires for s in found.steps] == [("x#solid",), ("y",)]


def test_what_is_no_copy_at_one_time_is_one_at_another() -> None:
    made = plan(
        [step("x#solid", read("x", FOURS), stream("x#solid", delay=FOURS)), step("y", op("Neg", read("x#solid")))]
    )
    assert [len(schedule(made, timing).steps) for timing in (Timing(1), Timing(4, True), Timing(1, True))] == [1, 1, 2]


def test_tensors_of_the_source_stay() -> None:
    assert [s.wires for s in schedule(plan([step("y", read("x"))]), ENDLESS).steps] == [("y",)]
    begun = step("x#cache", read("x"), stream("x#cache"), history="past")
    assert [s.wires for s in schedule(plan([begun, step("y", op("Neg", read("x#cache")))]), ENDLESS).steps] == [
        ("x#cache",),
        ("y",),
    ]
    assert schedule(plan([step("y", read("x")), Step("nothing", "Test", (), (), ())]), ENDLESS).steps[0].wires == ("y",)
