"""First frames that nobody reads, on plans made by hand; and the delays that are less for it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.bounds import SeenInwards
from pulsify_onnx.algebra.delay import AtLeast, Begins, Delay, Timing, time
from pulsify_onnx.algebra.facts import Mirror, Stream
from pulsify_onnx.algebra.plan import Frames, Plan, QueryKeyRead, Ref, State, Step, Window
from pulsify_onnx.passes.schedule import schedule
from pulsify_onnx.passes.unread import ALL, first_of, first_read
from testing.plans import ONE, frame, masked, op, plan, read, step, stream


def cropped(steps: list[Step], carrier: str, by: int, x: Stream | None = None) -> Plan:
    """A plan whose output is `carrier` without its first `by` frames."""
    whole = next((f for s in steps for f in s.facts if isinstance(f, Stream) and f.wire == carrier), stream(carrier))
    return plan(steps, x=x, facts={"y": stream(carrier, delay=whole.delay + by, rate=whole.rate)})


def test_a_crop_is_seen_through_windows() -> None:
    a = step("a", op("Sum", read("x", 2, 2)), stream("a"))
    assert first_read(cropped([a], "a", 5)) == {"a": 5, "x": 3}
    late = step("a", op("Sum", read("x", 3, 2)), stream("a", delay=Delay.of(3)))
    assert first_read(cropped([late], "a", 5)) == {"a": 5, "x": 5}, "frame i of it reads from i on, three pulses later"


def test_the_reader_that_begins_first_counts() -> None:
    steps = [step("a", op("Neg", read("x"))), step("b", op("Abs", read("a", 1))), step("c", op("Abs", read("a", 4)))]
    made = plan(steps, ("y", "z"), facts={"y": stream("b", delay=Delay.of(6)), "z": stream("c", delay=Delay.of(7))})
    assert first_read(made) == {"b": 6, "c": 7, "a": 3, "x": 3}
    assert first_read(plan(steps, ("y",), facts={"y": stream("b", delay=Delay.of(6))})) == {"b": 6, "a": 5, "x": 5}, (
        "what nobody reads reads nothing"
    )


def test_other_rates() -> None:
    half = step("a", op("Pool", Window("x", 0, Frames(ONE, 1))), stream("a", rate=Fraction(1, 2)))
    assert first_read(cropped([half], "a", 3)) == {"a": 3, "x": 6}
    double = step("a", op("Resize", Window("x", 1, Frames(ONE, 1))), stream("a", rate=Fraction(2)))
    assert [first_read(cropped([double], "a", by))["x"] for by in (5, 6, 7)] == [1, 2, 2]
    odd = step("a", op("Resize", Window("x", 0, Frames(ONE))), stream("a", rate=Fraction(2, 3)))
    assert first_read(cropped([odd], "a", 5)) == {"a": 5, "x": ALL}


def test_what_a_border_hides_is_not_read() -> None:
    x = stream("x", delay=Delay.of(-4), pad_before=4)
    a = step("a", op("Conv", read("x", 4, 2, masked(x, frame(), first=4))), stream("a"))
    assert first_read(cropped([a], "a", 1, x=x)) == {"a": 1, "x": 4} and first_read(cropped([a], "a", 6, x=x)) == {
        "a": 6,
        "x": 6,
    }


@pytest.mark.parametrize(
    "more", [{"states": [State("s", ir.DataType.FLOAT, (1,), read("x"), "test")]}, {"history": "past"}]
)
def test_what_is_carried_is_of_all_frames(more: dict[str, Any]) -> None:
    assert first_read(cropped([step("a", op("Neg", read("x"))), step("b", op("Neg", read("a")), **more)], "b", 3)) | {
        "past": ALL
    } == {"b": ALL, "a": ALL, "x": ALL, "past": ALL}


def test_what_has_no_window_is_of_all_frames() -> None:
    a = step("a", op("Neg", read("x")))
    for other in (Ref("a"), QueryKeyRead("a", (0, 0), (0, 0)), Window("a", 0, Frames(ONE), role=1)):
        assert first_read(cropped([a, step("b", op("Neg", other))], "b", 3))["a"] == ALL


def edged(delay: int = 0) -> Delay:
    """When a reader comes of a window of one frame on a wire behind seven mirrored ones."""
    start = Delay.of(delay - 7)
    return time(AtLeast(start), Begins(0), SeenInwards(start, 7, True, 1, ONE))


@pytest.mark.parametrize("by, delay", [(0, 0), (1, -1), (6, -6), (7, -7), (9, -7)])
def test_a_wire_comes_as_early_as_what_is_read_of_it(by: int, delay: int) -> None:
    padded = stream("x", delay=Delay.of(-7), pad_before=7, border=Mirror(edge=True))
    a = step(
        "a",
        op("Neg", read("x", edged() + 7, 0, masked(padded, Mirror(edge=True), first=7))),
        stream("a", delay=edged()),
    )
    timed = schedule(cropped([a], "a", by), Timing())
    assert timed.wires["a"].delay == Delay.of(delay) and timed.facts["y"].delay == Delay.of(delay + by)  # type: ignore[union-attr]
    assert timed.unread == {wire: first for wire, first in (("a", by), ("x", by - 7)) if first > 0}


def test_one_unknown_of_several_wires() -> None:
    steps = [step(name, op("Neg", read("x", edged() + 7)), stream(name, delay=edged())) for name in "ab"]
    ((unknown, _),) = edged().terms
    made = plan(steps, ("y", "z"), facts={"y": stream("a", delay=edged() + 6), "z": stream("b", delay=edged() + 2)})
    assert first_of(made, first_read(made)) == {unknown: 2}
    assert first_of(made, {"a": 6, "b": ALL}) == {} and first_of(made, {"a": 6}) == {unknown: 6}


def test_what_was_aligned_on_the_way_is_read_as_what_it_became() -> None:
    """The wire itself is never before its first frame; what it waits for is no wire."""
    ((unknown, _),) = edged().terms
    late = time(AtLeast(edged()), AtLeast(Delay.of(3)))
    made = plan(
        [
            step("a", op("Neg", read("x", edged() + 7)), stream("a", delay=edged())),
            step("b", op("Neg", read("x", late)), stream("b", delay=late)),
        ]
    )
    assert (
        first_of(made, {"a": 6, "b": 1}) == {unknown: 1, late.terms[0][0]: 1}
        and first_of(made, {"a": 6, "b": ALL}) == {}
    )
    twice = time(AtLeast(edged() + edged(1)), AtLeast(Delay.of(3)))
    both = plan([step("b", op("Neg", read("x", twice)), stream("b", delay=twice))])
    assert first_of(both, {"b": 5}) == {twice.terms[0][0]: 5}, "of a sum no part is known to be read later"
