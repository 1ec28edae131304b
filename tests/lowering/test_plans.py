"""Plans made by hand, lowered and run: histories, masks, mirrored windows, states, positions, and pulses of any
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from pulsify_onnx.algebra.bounds import Known
from pulsify_onnx.algebra.delay import AtLeast, Delay, time
from pulsify_onnx.algebra.facts import Mirror, PaddingFrames, QueryKey, Running, Static, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import (
    Count,
    Dims,
    Frames,
    Number,
    Past,
    Position,
    QueryKeyRead,
    Start,
    State,
    Step,
    When,
)
from pulsify_onnx.algebra.plan import Test as Asked
from pulsify_onnx.arrays import Const
from testing.plans import ONE, T, flat, frame, lowered, masked, op, plan, read, run, step, stream

NAN = float("nan")
FOURS = time(Known(T.floordiv(4) * 4, ONE), AtLeast(Delay()))


def number(value: Any) -> Const:
    return Const(np.asarray(value, np.int64))


def summed(expr: Any) -> Any:
    """[1, 1, frames] of the frames in a window, added up."""
    return op("ReduceSum", expr, number([2]), keepdims=1)


def scalar(expr: Any) -> Any:
    """[1, 1, 1] of one number."""
    return op("Reshape", op("Cast", expr, to=int(ir.DataType.FLOAT)), number([1, 1, 1]))


def pulses(values: Sequence[float], size: int) -> list[list[float]]:
    padded = [*values, *[NAN] * (-len(values) % size)]
    return [padded[k : k + size] for k in range(0, len(padded), size)]


def valid(count: int, size: int, flush: int = 0) -> list[int]:
    return [min(size, count - k) for k in range(0, count, size)] + [0] * flush


def out(
    steps: Sequence[Step],
    frames: Sequence[Sequence[float]],
    pulse: int | None,
    x: Stream | None = None,
    real: Sequence[int] = (),
) -> list[float]:
    """What comes out at y, frame after frame."""
    return flat(run(lowered(plan(steps, x=x), pulse, bool(real)), frames, real)["y"])


ONE_TO_SIX = [1.0, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("pulse", (1, 2, 3, 6))
def test_a_window_reads_back(pulse: int) -> None:
    assert out([step("y", op("Neg", read("x", 2)))], pulses(ONE_TO_SIX, pulse), pulse) == [0, 0, -1, -2, -3, -4]


@pytest.mark.parametrize(
    "back, extra, want",
    [(2, 0, [1, 2]), (2, 2, [1, 2, 3, 4]), (0, 0, [3, 4]), (-1, -1, [4]), (1, -1, [2]), (3, 2, [0, 1, 2, 3])],
)
def test_windows_of_any_place(back: int, extra: int, want: list[float]) -> None:
    """In the second pulse of two frames."""
    assert (
        out([step("y", op("Identity", read("x", back, extra)), stream("y", T))], [[1, 2], [3, 4]], 2)[-len(want) :]
        == want
    )


def test_one_history_for_a_wire() -> None:
    graph = lowered(
        plan([step("y", op("Add", read("x", 3), read("x", 1))), step("z", op("Neg", read("x", 2)))], ("y", "z")), 2
    )
    (state,) = graph.states
    assert state.shape == (1, 1, 3) and state.role == "history" and state.node == "x"
    found = run(graph, pulses(ONE_TO_SIX, 2))
    assert flat(found["y"]) == [0, 1, 2, 4, 6, 8] and flat(found["z"]) == [0, 0, -1, -2, -3, -4]


def test_wires_have_histories_of_their_own() -> None:
    graph = lowered(plan([step("a", op("Neg", read("x", 1))), step("y", op("Add", read("a", 2), read("x")))]), 1)
    assert sorted(s.shape[-1] for s in graph.states) == [1, 2] and {s.node for s in graph.states} == {"x", "a"}
    assert flat(run(graph, pulses(ONE_TO_SIX, 1))["y"]) == [1, 2, 3, 3, 3, 3]


def test_a_history_is_masked_once_as_it_arrives() -> None:
    """Two frames of warm-up read as zeros, by the padded reader and by the plain one of the same history."""
    x = stream("x", delay=Delay.of(2))
    graph = lowered(plan([step("y", op("Add", read("x", 1, mask=masked(x, frame())), read("x", 3)))], x=x), 2)
    assert [s.role for s in graph.states].count("history") == 1 and {s.role for s in graph.states} == {
        "clock",
        "history",
    }
    assert flat(run(graph, [[9, 9], [1, 2], [3, 4], [5, 6]])["y"]) == [0, 0, 0, 1, 2, 4, 6, 8]


def test_frames_of_another_border_are_laid_on_the_window() -> None:
    x = stream("x", delay=Delay.of(1))
    assert out([step("y", op("Neg", read("x", 1, mask=masked(x, frame(7)))))], [[9, 1], [2, 3], [4, 5]], 2, x) == [
        -7,
        -7,
        -1,
        -2,
        -3,
        -4,
    ]


def test_a_history_of_masked_frames_begins_with_the_border() -> None:
    """All of what was there before the stream is the border, not what a state begins with."""
    assert out([step("y", op("Neg", read("x", 3, mask=masked(stream("x"), frame(7)))))], pulses(ONE_TO_SIX, 2), 2) == [
        -7,
        -7,
        -7,
        -1,
        -2,
        -3,
    ]


def test_frames_past_the_end_are_hidden() -> None:
    steps = [step("y", op("Neg", read("x", 1, mask=masked(stream("x"), frame()))))]
    assert out(steps, [*pulses([1, 2, 3], 2), [NAN, NAN]], 2, real=valid(3, 2, 1)) == [0, -1, -2, -3, 0, 0]
    steps = [step("y", op("Neg", read("x", 1, mask=masked(stream("x"), frame(5)))))]
    assert out(steps, [*pulses([1, 2, 3], 2), [NAN, NAN]], 2, real=valid(3, 2, 1)) == [-5, -1, -2, -3, -5, -5]


def test_real_frames_that_are_cut_off() -> None:
    """One frame fewer than came: which it is shows when the stream ends, and is not remembered."""
    steps = [step("y", op("Neg", read("x", 2, mask=masked(stream("x"), frame(), end=T - 1))))]
    assert out(steps, [*pulses([1, 2, 3, 4], 2), [NAN, NAN]], 2, real=valid(4, 2, 1)) == [0, 0, -1, -2, -3, 0]


def test_a_border_whose_frames_differ() -> None:
    onset = PaddingFrames(Const(np.asarray([[[10, 20]]], np.float32)))
    x = stream("x", delay=Delay.of(-2))
    found = out(
        [step("y", op("Identity", read("x", 3, mask=masked(x, onset, first=2, after=False, sealed=True))))],
        pulses(ONE_TO_SIX, 2),
        2,
        x,
    )
    assert found == [10, 10, 20, 1, 2, 3], "before the first of them it goes on as that one"


def test_an_infinite_border_ends() -> None:
    x = stream("x", delay=Delay.of(-1))
    mask = masked(x, frame(float("inf")), first=1, after=False, infinite=T + 1)
    assert out([step("y", op("Identity", read("x", 2, mask=mask)))], pulses([1, 2, 3, 4], 2), 2, x) == [
        0,
        float("inf"),
        1,
        2,
    ]


@pytest.mark.parametrize("edge, first", [(False, [3, 2, 1, 2, 3]), (True, [1, 1, 1, 2, 3])])
def test_frames_mirrored_at_the_start(edge: bool, first: list[float]) -> None:
    """Padded by two, read two frames late: frame 2 of the wire is there when frame 0 is made."""
    x = stream("x", T + 2, delay=Delay.of(-2), pad_before=2)
    mask = masked(x, Mirror(edge), first=2, after=False, sealed=True)
    found = out(
        [step("y", op("Identity", read("x", 4, mask=mask)), stream("y", delay=Delay.of(2)))],
        pulses(ONE_TO_SIX, 1),
        1,
        x,
    )
    assert found[2:] == first[:4]


@pytest.mark.parametrize("edge, last", [(False, [2, 3, 4, 3, 2]), (True, [2, 3, 4, 4, 4])])
@pytest.mark.parametrize("pulse", (1, 2, 3))
def test_frames_mirrored_at_the_end(pulse: int, edge: bool, last: list[float]) -> None:
    x = stream("x", T + 2, pad_after=Length.of(2))
    mask = masked(x, Mirror(edge), end=T, before=False, sealed=True, reach=2 if edge else 4)
    frames = pulses([1.0, 2, 3, 4], pulse)
    flush = 4
    found = out(
        [step("y", op("Identity", read("x", 1, mask=mask)))],
        [*frames, *[[NAN] * pulse] * flush],
        pulse,
        x,
        valid(4, pulse, flush),
    )
    assert found[2:7] == last


def test_states_of_a_rule() -> None:
    state = State("total", ir.DataType.FLOAT, (Length.of(1),) * 3, op("Add", Past("total"), summed(read("x"))), "test")
    graph = lowered(plan([step("y", op("Add", Past("total"), read("x")), states=[state])]), 2)
    (lowered_state,) = graph.states
    assert (lowered_state.role, lowered_state.shape, lowered_state.input.name, lowered_state.output.name) == (
        "test",
        (1, 1, 1),
        "past_000_total",
        "present_000_total",
    )
    found = run(graph, pulses(ONE_TO_SIX, 2))
    assert flat(found["y"]) == [1, 2, 6, 7, 15, 16] and flat(found["present_000_total"]) == [3, 10, 21]


def test_what_is_decided_by_the_schedule_is_not_in_the_graph() -> None:
    steps = [step("y", When(Asked(ends=True), op("Abs", read("x")), op("Neg", read("x"))))]
    assert out(steps, [[1, 2]], 2) == [-1, -2] and out(steps, [[-1, -2]], 2, real=[2]) == [1, 2]
    assert [n.op_type for n in lowered(plan(steps), 2).model.graph] == ["Neg"]


def test_a_delay_that_the_pulse_decides() -> None:
    steps = [
        step("y", op("Neg", read("x", FOURS)), stream("y", delay=FOURS)),
        step("z", op("Add", read("y"), op("Cast", Number(FOURS), to=1))),
    ]
    for pulse, back in ((1, 3), (2, 2), (4, 0)):
        graph = lowered(plan(steps, ("y", "z")), pulse, ends=True)
        found = run(graph, pulses([1.0, 2, 3, 4], pulse), valid(4, pulse))
        assert flat(found["y"]) == ([0] * back + [-1, -2, -3, -4])[:4] and flat(found["z"]) == [
            v + back for v in flat(found["y"])
        ]


def test_positions_count_on() -> None:
    position = step(
        "p", op("Reshape", op("Cast", Position(ONE), to=1), number([1, 1, -1])), stream("p", positional=True)
    )
    steps = [
        position,
        step("y", op("Add", read("x"), op("Mul", read("p", 3), Const(np.asarray([[[10]]], np.float32))))),
    ]
    graph = lowered(plan(steps), 2)
    assert [s.role for s in graph.states] == ["clock"], "three frames back, and nothing remembered"
    assert flat(run(graph, [[1, 1]] * 3)["y"]) == [-29, -19, -9, 1, 11, 21]
    late = step("y", op("Add", read("x"), op("Reshape", op("Cast", Position(ONE, 2, 0), to=1), number([1, 1, -1]))))
    assert out([late], [[0, 0]] * 2, 2) == [-2, -1, 0, 1]


def test_starts_and_counts() -> None:
    start = Running("y", ir.DataType.FLOAT, (Length.of(1),) * 3)
    assert out([step("y", scalar(Start(ONE, 3)), start)], [[0, 0]] * 3, 2) == [-3, -1, 1]
    assert out([step("y", scalar(Start(Fraction(1, 2), 1)), start)], [[0, 0]] * 3, 2) == [-1, 0, 1]
    counted = [step("y", scalar(Count((T + 1).floordiv(2))), start)]
    assert out(counted, [[0, 0, 0]] * 2, 3) == [2, 3]
    assert out(counted, [[0, 0, 0]] * 3, 3, real=[3, 1, 0]) == [2, 2, 2], "with an end, real frames are counted"


def test_pairs_are_computed_where_they_are_closed() -> None:
    """Products of every frame with itself and the two before it: the diagonal band, summed."""
    pair = QueryKey("p", ir.DataType.FLOAT, (Length.of(1), T, T), (1, 2), ONE)
    queries = op("Reshape", read("x"), number([1, -1, 1]))
    keys = op("Reshape", replace(read("x"), frames=Frames(ONE, role=1), role=1), number([1, 1, -1]))
    steps = [
        step("p", op("Mul", queries, keys), pair),
        step(
            "y",
            op(
                "Reshape",
                op("ReduceSum", QueryKeyRead("p", (0, 0), (2, 2)), number([2]), keepdims=0),
                Dims((1, 1, Frames(ONE))),
            ),
        ),
    ]
    for pulse in (1, 3):
        # every query meets all keys of its window: those of the pulse and two before
        seen = [0.0, 0, *ONE_TO_SIX]
        want = [v * sum(seen[k // pulse * pulse : k // pulse * pulse + pulse + 2]) for k, v in enumerate(ONE_TO_SIX)]
        graph = lowered(plan(steps), pulse)
        assert [s.shape for s in graph.states] == [(1, 1, 2)] and flat(
            run(graph, pulses(ONE_TO_SIX, pulse))["y"]
        ) == want


def test_a_cache_of_the_caller_comes_first() -> None:
    past = Static(
        "past", ir.DataType.FLOAT, (Length.of(1), Length.of(1), Length.of(2)), Const(np.asarray([[[7, 8]]], np.float32))
    )
    begun = step("c", read("x"), stream("c", T + 2, delay=Delay.of(-2), cached=2), history="past")
    made = plan([begun, step("y", op("Identity", read("c", 2)))], facts={"past": past})
    graph = lowered(made, 2)
    assert not graph.states and flat(run(graph, [[1, 2]])["y"]) == [7, 8]
    older = lowered(plan([begun, step("y", op("Identity", read("c", 3)))], facts={"past": past}), 2)
    assert [s.shape for s in older.states] == [(1, 1, 1)]


def test_what_is_computed_by_its_readers() -> None:
    deferred = replace(step("d", op("Neg", read("x"))), deferred=True)
    graph = lowered(plan([deferred, step("y", op("Abs", read("d", 2)))]), 2)
    assert [s.node for s in graph.states] == ["x"] and flat(run(graph, pulses(ONE_TO_SIX, 2))["y"]) == [
        0,
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("ends", (False, True))
def test_one_graph_for_pulses_of_any_size(ends: bool) -> None:
    x = stream("x", delay=Delay.of(1))
    position = step(
        "p", op("Reshape", op("Cast", Position(ONE), to=1), number([1, 1, -1])), stream("p", positional=True)
    )
    steps = [
        position,
        step(
            "y",
            op(
                "Add",
                read("x", 2, mask=masked(x, frame(7))),
                op("Mul", read("p"), Const(np.asarray([[[10]]], np.float32))),
            ),
        ),
    ]
    graph = lowered(plan(steps, x=x), None, ends)
    frames = [[9.0], [1, 2, 3], [4, 5], [NAN, NAN]] if ends else [[9.0], [1, 2, 3], [4, 5], [6, 6]]
    found = run(graph, frames, [1, 3, 0, 0] if ends else ())
    want = [7, 7, 7, 1, 2, 3, *([4, 7] if ends else [4, 5])]
    assert flat(found["y"]) == [v + 10 * k for k, v in enumerate(want)]
    assert graph.model.graph.inputs[0].shape is not None and isinstance(
        graph.model.graph.inputs[0].shape[2], ir.SymbolicDim
    )


def test_outputs_keep_their_names_whatever_carries_them() -> None:
    made = plan([step("a", op("Neg", read("x")))], ("y", "z", "x"), facts={"y": stream("a"), "z": stream("a")})
    graph = lowered(made, 2)
    assert [o.name for o in graph.model.graph.outputs] == ["y", "z", "x"]
    found = run(graph, [[1, 2]])
    assert flat(found["y"]) == flat(found["z"]) == [-1, -2]
