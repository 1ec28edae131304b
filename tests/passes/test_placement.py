"""Where streams wait: on plans made by hand, on networks, and wherever else they could."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.bounds import Known
from pulsify_onnx.algebra.delay import AtLeast, Delay, Timing, time
from pulsify_onnx.algebra.facts import Mirror, Stream
from pulsify_onnx.algebra.hidden import TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import (
    Dims,
    Expr,
    Frames,
    Number,
    Plan,
    Position,
    Requirement,
    Start,
    State,
    Step,
    When,
    Window,
)
from pulsify_onnx.algebra.plan import Test as Asked
from pulsify_onnx.api import pulsify
from pulsify_onnx.convert import pipeline
from pulsify_onnx.passes import placement
from pulsify_onnx.passes.histories import Histories
from pulsify_onnx.passes.placement import place
from pulsify_onnx.passes.schedule import schedule
from testing.networks import network
from testing.oracle import check, every_length, parse, rand
from testing.plans import ONE, T, frame, masked, op, plan, read, step, stream

ENDLESS, ENDING = Timing(1), Timing(1, True)


def wide(wire: str, **more: Any) -> Stream:
    """A stream of 64 numbers a frame."""
    return stream(wire, shape=(Length.of(1), Length.of(64), more.pop("extent", T)), **more)


def late(wire: str, by: int, **more: Any) -> Stream:
    return stream(wire, delay=Delay.of(by), **more)


def fused(expr: Expr, *more: Step, last: Any = None, **options: Any) -> Plan:
    """A wide wire `w` of x, and a slow one of three frames of x, that meet: one of them must wait for two frames."""
    steps = [
        step("w", expr, wide("w"), **options),
        step("slow", op("Conv", read("x", 2, 2)), late("slow", 2)),
        *more,
        step("y", last or op("Add", read("w", 2), read("slow")), late("y", 2)),
    ]
    return plan(steps, x=stream("x"))


def waits(made: Plan, timing: Timing = ENDLESS) -> dict[str, int]:
    """How long wires wait in what is placed, which is never later or larger than the least plan."""
    found, least = place(made, timing), schedule(made, timing)
    assert all(found.facts[name] == least.facts[name] for name in (*made.inputs, *made.outputs))
    assert remembered(found) <= remembered(least)
    for wire, wait in found.waits.items():
        x, before = found.wires[wire], least.wires[wire]
        assert (
            isinstance(x, Stream)
            and isinstance(before, Stream)
            and x == replace(before, delay=before.delay + int(wait * x.rate))
            and wait > 0
        )
    return dict(found.waits)


def remembered(made: Plan) -> int:
    """Numbers in histories."""
    total = 0
    for history in Histories(made):
        x = made.wires[history.wire]
        assert isinstance(x, Stream)
        total += history.frames * int(np.prod([d.constant or 1 for k, d in enumerate(x.shape) if k != x.axis]))
    return total


def windows(made: Plan, wire: str) -> list[Window]:
    return [leaf for s in made.steps if s.wires == (wire,) for leaf in s.leaves if isinstance(leaf, Window)]


def test_what_waits_does_so_before_it_is_wide() -> None:
    made = fused(op("Conv", read("x")))
    assert waits(made) == {"w": 2}
    found = place(made, ENDLESS)
    assert windows(found, "w") == [read("x", 2)] and windows(found, "y") == [read("slow"), read("w")]
    assert [(h.wire, h.frames) for h in Histories(found)] == [("x", 2)]


def test_what_waits_does_so_behind_what_makes_it_narrow() -> None:
    """Both ways to wait are there: at the least delays the narrow wire waits, and nothing is better."""
    steps = [
        step("w", op("Conv", read("x")), wide("w")),
        step("narrow", op("Conv", read("w"))),
        step("slow", op("Conv", read("x", 2, 2)), late("slow", 2)),
        step("y", op("Add", read("narrow", 2), read("slow")), late("y", 2)),
    ]
    found = place(plan(steps), ENDLESS)
    assert [(h.wire, h.frames) for h in Histories(found)] == [("x", 2)] and found.waits == {"w": 2, "narrow": 2}
    steps[2] = step("slow", op("Conv", read("w", 2, 2)), late("slow", 2))
    assert waits(plan(steps)) == {"narrow": 2}, "of the wide wire two frames are there anyway"


def test_of_places_that_are_as_good_the_earliest() -> None:
    assert waits(fused(op("Conv", read("x")), step("idle", op("Neg", read("x"))))) == {"w": 2}
    equal = plan(
        [
            step("a", op("Neg", read("x"))),
            step("slow", op("Conv", read("x", 2, 2)), late("slow", 2)),
            step("b", op("Neg", read("a"))),
            step("c", op("Neg", read("b", 2)), late("c", 2)),
            step("y", op("Add", read("c"), read("slow")), late("y", 2)),
        ]
    )
    assert waits(equal) == {"a": 2, "b": 2}, "the history of x is there already"


@pytest.mark.parametrize(("channels", "found"), [(9, {}), (11, {"w": 2})])
def test_one_more_history_must_pay(channels: int, found: dict[str, int]) -> None:
    """Two frames of so many floats, or of two wires of one float each and 64 bytes for the nodes of the second."""
    counted = [step(wire, op("Add", read("x"), Position(ONE))) for wire in "ab"]
    w = stream("w", shape=(Length.of(1), Length.of(channels), T))
    assert (
        waits(plan([*counted, step("w", op("Concat", read("a"), read("b")), w), *fused(read("x")).steps[1:]])) == found
    )


def test_one_more_mask_must_pay() -> None:
    """What comes at once needs none; with an end of stream it is there anyway."""
    made = fused(
        op("Conv", read("x")),
        step("v", op("Conv", read("w", mask=masked(wide("w"), frame())))),
        last=op("Add", read("v", 2), read("slow")),
    )
    assert waits(made, ENDLESS) == {} and waits(made, ENDING) == {"w": 2, "v": 2}


@pytest.mark.parametrize(
    "expr",
    [
        op("Add", read("x"), Position(ONE, 0)),
        op("Add", read("x"), Start(ONE, 0)),
        op("Add", read("x"), Number(Delay.of(2))),
        When(Asked(ends=True), read("x"), read("x")),
        op("Add", read("x"), Dims((Frames(ONE, 0, 1),))),
        read("x", border=Mirror(True)),
        Window("x", 0, Frames(ONE), role=1),
        read("x", -1),
    ],
)
def test_what_knows_more_than_its_frames_is_where_it_is(expr: Expr) -> None:
    assert waits(fused(expr)) == {}


@pytest.mark.parametrize(
    "more",
    [
        {"states": [State("kept", ir.DataType.FLOAT, (1,), op("Sum", read("x")), "test")]},
        {"history": "cache"},
        {"requires": (Requirement(Asked(ends=True), "it may end", "do not"),)},
    ],
)
def test_steps_with_states_of_their_own_are_where_they_are(more: dict[str, Any]) -> None:
    assert waits(fused(op("Conv", read("x")), **more)) == {}


def test_what_else_reads_a_wire_keeps_it() -> None:
    assert waits(fused(op("Conv", read("x")), step("z", op("Add", read("w"), Position(ONE, 0))))) == {}
    made = fused(op("Conv", read("x")))
    assert waits(replace(made, outputs=("y", "w"))) == {}


def test_where_something_must_be_on_time_nothing_moves() -> None:
    on_time = Requirement(Asked(late=time(Known(T, ONE), AtLeast(Delay()))), "it is late", "do not")
    assert waits(fused(op("Conv", read("x")), Step("t", "Test", (), (), (), requires=(on_time,)))) == {}


def test_masks_come_later_too() -> None:
    x = stream("x")
    made = fused(
        op("Conv", read("x", mask=masked(x, frame(), end=T - 1))),
        step("v", op("Conv", read("w", mask=masked(wide("w"), frame(7), end=T - 3))), wide("v")),
        last=op("Add", read("v", 2), read("slow")),
    )
    assert waits(made, ENDING) == {"w": 2, "v": 2}
    (mask,) = (w.mask for w in windows(place(made, ENDING), "v"))
    assert isinstance(mask, TimedMask) and (mask.low, mask.high, mask.start, mask.end) == (2, T - 1, True, True)


def test_waits_are_whole_frames_of_all_that_moves() -> None:
    """One frame in four: what is faster waits for whole frames of it."""
    quarter = {"rate": Fraction(1, 4), "extent": T.floordiv(4)}
    w = wide("w", **quarter)
    slow = stream("slow", T.floordiv(4), rate=Fraction(1, 4), delay=Delay.of(1))
    steps = [
        step("u", op("Neg", read("x"))),
        step("w", op("Conv", Window("u", 0, Frames(ONE))), w),
        step("slow", op("Conv", read("x", 4, 4)), slow),
        step(
            "y",
            op("Add", Window("w", 1, Frames(Fraction(1, 4))), Window("slow", 0, Frames(Fraction(1, 4)))),
            replace(slow, wire="y"),
        ),
    ]
    made = replace(plan(steps), pulse_multiple=4)
    assert waits(made, Timing(4)) == {"u": 4, "w": 4}


@pytest.mark.parametrize(("multiple", "back"), [(1, 2), (2, 2), (4, 0)])
def test_pulses_of_whole_chunks_stay_so(multiple: int, back: int) -> None:
    made = replace(fused(op("Conv", read("x"))), pulse_multiple=multiple)
    assert waits(made, Timing(multiple)) == ({"w": back} if back else {})


def test_copies_that_the_schedule_leaves_out_come_along() -> None:
    made = fused(
        op("Conv", read("x")),
        step("w#solid", read("w"), wide("w#solid")),
        last=op("Add", read("w#solid", 2), read("slow")),
    )
    assert waits(made) == {"w": 2} and read("w") in windows(place(made, ENDLESS), "y")
    hidden = step("w#solid", read("w", mask=masked(wide("w"), frame())), wide("w#solid"))
    assert waits(fused(op("Conv", read("x")), hidden, last=op("Add", read("w#solid", 2), read("slow")))) == {}, (
        "its mask would be needed"
    )


def test_the_plan_is_not_changed() -> None:
    made = fused(op("Conv", read("x")))
    before = repr(made)
    assert place(made, ENDLESS) == place(made, ENDLESS) and repr(made) == before


# networks

FUSION = parse(
    """agraph (float[1,2,T] x) => (float[1,3,U] y) {
    wide = Conv(x, w)
    loud = Relu(wide)
    slow = Conv<pads=[4,4]>(x, s)
    both = Concat<axis=1>(loud, slow)
    y = Conv(both, o)
}""",
    w=rand(48, 2, 1),
    s=rand(4, 2, 9, seed=1),
    o=rand(3, 52, 1, seed=2),
)

INCEPTION = parse(
    """agraph (float[1,4,T] x) => (float[1,3,U] y) {
    a = Conv(x, a0)
    b0 = Conv(x, w0)
    b = Conv<pads=[1,1]>(b0, b1)
    c0 = Conv(x, w0)
    c = Conv<pads=[3,3]>(c0, c1)
    d0 = MaxPool<kernel_shape=[3], pads=[1,1]>(x)
    d = Conv(d0, a0)
    all = Concat<axis=1>(a, b, c, d)
    again = Relu(all)
    y = Conv<pads=[2,2]>(again, o)
}""",
    a0=rand(16, 4, 1),
    w0=rand(2, 4, 1, seed=1),
    b1=rand(8, 2, 3, seed=2),
    c1=rand(8, 2, 7, seed=3),
    o=rand(3, 48, 5, seed=4),
)

STRIDES = parse(
    """agraph (float[1,2,T] x) => (float[1,3,U] y) {
    wide = Conv(x, w)
    fast = Conv<strides=[2]>(wide, f)
    slow0 = Conv<strides=[2], pads=[2,2]>(x, s)
    slow = Conv<pads=[3,3]>(slow0, t)
    both = Concat<axis=1>(fast, slow)
    y = Conv(both, o)
}""",
    w=rand(8, 2, 1),
    f=rand(16, 8, 1, seed=1),
    s=rand(2, 2, 5, seed=2),
    t=rand(2, 2, 7, seed=3),
    o=rand(3, 18, 1, seed=4),
)

LONG_WAY = parse(
    """agraph (float[1,4,T] x) => (float[1,1,T] y) {
    one = Conv<pads=[2,2]>(x, a)
    two = Conv<pads=[2,2]>(one, b)
    narrow = Conv(one, n)
    wide = Conv(narrow, w)
    back = Conv(wide, v)
    y = Add(two, back)
}""",
    a=rand(8, 4, 5),
    b=rand(1, 8, 5, seed=1),
    n=rand(2, 8, 1, seed=2),
    w=rand(16, 2, 1, seed=3),
    v=rand(1, 16, 1, seed=4),
)

BORDER = parse(
    """agraph (float[1,2,T] x) => (float[1,3,U] y) {
        a = Conv<pads=[4,0]>(x, u, b)
        c = Slice(a, zero, end, axis)
        t = Transpose<perm=[0,2,1]>(c)
        m = MatMul(t, wide)
        n = Transpose<perm=[0,2,1]>(m)
        d = Conv<group=3>(n, v, e)
        y = MaxPool<kernel_shape=[4], pads=[1,1], ceil_mode=1>(d) }""",
    u=rand(2, 2, 2),
    b=rand(2),
    zero=np.array([0]),
    end=np.array([-4]),
    axis=np.array([2]),
    wide=rand(2, 3),
    v=rand(3, 1, 3),
    e=rand(3),
)
"""What waits ends in a border that is made solid: how late that one comes follows from what is read of it."""

NETWORKS = {"fusion": FUSION, "inception": INCEPTION, "strides": STRIDES, "long_way": LONG_WAY, "border": BORDER}


def unplaced(model: onnx.ModelProto, pulse: int, monkeypatch: pytest.MonkeyPatch, end: bool = False) -> dict[str, Any]:
    """The sidecar where everything comes as early as it can."""
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "place", schedule)
        return pulsify(model, pulse=pulse, end_of_stream=end).spec


@pytest.mark.parametrize(
    ("name", "before", "after"), [("fusion", 832, 64), ("inception", 1256, 904), ("strides", 344, 120)]
)
def test_state_of_networks(name: str, before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name]
    old = unplaced(model, 2, monkeypatch)
    assert (old["state_bytes"], pulsify(model, pulse=2).spec["state_bytes"]) == (before, after)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_exact_and_no_later(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name]
    old = unplaced(model, 2, monkeypatch)
    unit = 2 if name == "strides" else 1
    check(model, delays={o["name"]: o["delay"] for o in old["outputs"]}, absorbed=True, unit=unit)
    every_length(model)


def wild(seed: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Streams wait anywhere: every frame costs what is drawn, and nothing else counts. How many plans are so placed."""
    rng, moved = random.Random(seed), [0]

    def drawn(made: Plan) -> dict[str, int]:
        return {wire: rng.choice([0, 1, 10, 100]) for wire in made.wires}

    def taken(*_: Plan) -> bool:
        moved[0] += 1
        return True

    monkeypatch.setattr(placement, "_frame_bytes", drawn)
    monkeypatch.setattr(placement, "_pays", taken)
    monkeypatch.setattr(placement, "HISTORY", 0)
    return moved


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(4))
def test_networks_are_exact_wherever_streams_wait(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = wild(seed, monkeypatch)
    check(NETWORKS[name], unit=2 if name == "strides" else 1)
    assert moved[0]


def test_random_networks_are_exact_wherever_streams_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = wild(0, monkeypatch)
    for seed in range(40):
        net = network(seed, 8)
        check(
            net.model,
            pulses=(1 + seed % 9,),
            length=net.lengths[seed % len(net.lengths)],
            unit=net.unit,
            shortest=net.lengths[0],
            rtol=2e-3,
        )
    assert moved[0] > 10
