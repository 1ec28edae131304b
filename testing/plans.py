"""Plans made by hand: streams of [1, 1, T], steps that read them, and what runs once they are lowered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from pulsify_onnx.algebra.delay import Timing
from pulsify_onnx.algebra.facts import Fact, Padding, Stream
from pulsify_onnx.algebra.hidden import Mask
from pulsify_onnx.algebra.length import TIME, Length
from pulsify_onnx.algebra.plan import Expr, Frames, Op, Options, Plan, State, Step, Window
from pulsify_onnx.algebra.plan_checks import check_plan
from pulsify_onnx.arrays import Const
from pulsify_onnx.lowering.lower import Lowered, lower
from pulsify_onnx.model.load import Source, load
from pulsify_onnx.passes.schedule import schedule
from testing.oracle import parse, session

T = Length.symbol(TIME)
ONE = Fraction(1)


def stream(wire: str, extent: Length = T, **more: Any) -> Stream:
    """[1, 1, extent] of floats, along the last axis."""
    return Stream(
        **{
            "wire": wire,
            "dtype": ir.DataType.FLOAT,
            "shape": (Length.of(1), Length.of(1), extent),
            "axis": 2,
            "rate": ONE,
            "source": wire,
            **more,
        }
    )


def frame(value: float = 0.0) -> Const:
    """A border of that value."""
    return Const(np.full([1, 1, 1], value, np.float32))


def read(wire: str, back: Any = 0, extra: Any = 0, mask: Any = None, border: Padding | None = None) -> Window:
    """A window on a wire of rate 1."""
    return Window(wire, back, Frames(ONE, extra), mask, border)


def masked(x: Stream, border: Padding, first: int = 0, end: Length | None = None, **more: Any) -> Mask:
    """A mask on both sides of `x`."""
    return Mask(
        **{
            "delay": x.delay,
            "first": first,
            "end": x.extent if end is None else end,
            "border": border,
            "before": True,
            "after": True,
            "rate": x.rate,
            **more,
        }
    )


def op(kind: str, *inputs: Expr | None, **attributes: Any) -> Op:
    """An operator with one output."""
    return Op(kind, inputs, tuple(attributes.items()))


def step(wire: str, expr: Expr, fact: Fact | None = None, states: Sequence[State] = (), **more: Any) -> Step:
    """A step that computes one wire, a stream like the input unless told."""
    return Step(wire, "Test", (wire,), (expr,), (fact if fact is not None else stream(wire),), tuple(states), **more)


def plan(
    steps: Sequence[Step],
    outputs: Sequence[str] = ("y",),
    x: Stream | None = None,
    facts: Mapping[str, Fact] | None = None,
    timing: Timing | None = None,
) -> Plan:
    """A plan with input ``x``; the facts are those of the steps, or `facts`."""
    found: dict[str, Fact] = {"x": x or stream("x")} | {
        wire: fact for s in steps for wire, fact in zip(s.wires, s.facts)
    }
    return Plan(
        ("x",), tuple(outputs), {**found, **(facts or {})}, found, tuple(steps), (), 1, Options(), timing=timing
    )


SOURCE = "agraph (float[1,1,T] x) => ({}) {{ {} }}"


def source(outputs: Sequence[str] = ("y",)) -> Source:
    """A model with the input and outputs of a plan; lowering takes from it opset, names and constants only."""
    return load(
        parse(
            SOURCE.format(
                ", ".join(f"float[1,1,T] {name}" for name in outputs),
                " ".join(f"{name} = Identity(x)" for name in outputs if name != "x"),
            )
        )
    )


def lowered(made: Plan, pulse: int | None, ends: bool = False) -> Lowered:
    """`made` scheduled and lowered, for pulses of so many frames."""
    timed = schedule(made, Timing(pulse or 1, ends))
    check_plan(timed, "schedule")
    return lower(timed, source(made.outputs), pulse)


def run(graph: Lowered, pulses: Sequence[Sequence[float]], valid: Sequence[int] = ()) -> dict[str, list[np.ndarray]]:
    """Outputs and states of every pulse: `pulses` go in one by one, with how many of their frames are real where the
    stream ends.
    """
    running: ort.InferenceSession = session(ir.to_proto(graph.model).SerializeToString(), plain=True)
    states = {s.input.name: np.zeros(s.shape, s.dtype.numpy()) for s in graph.states}
    names = [o.name for o in running.get_outputs()]
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for k, values in enumerate(pulses):
        feeds: dict[Any, Any] = {"x": np.asarray(values, np.float32).reshape(1, 1, -1), **states}
        if graph.valid_frames is not None:
            feeds[graph.valid_frames] = np.asarray([valid[k]], np.int64)
        outs = dict(zip(names, running.run(None, feeds)))
        states = {s.input.name: outs[s.output.name] for s in graph.states}
        for name, value in outs.items():
            found[name].append(value)
    return found


def flat(values: Sequence[np.ndarray]) -> list[float]:
    """What came out, frame after frame."""
    return [float(v) for value in values for v in value.reshape(-1)]
