"""The pulsed graph under construction: its states, its clock, and what is known of the rows of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import (
    ALONE,
    Fact,
    Padding,
    PaddingFrames,
    QueryKey,
    RelativeScores,
    Running,
    Shape,
    Static,
    Stream,
)
from pulsify_onnx.algebra.hidden import TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Dim, Frames, Merged, Plan, State
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker, CannotStream
from pulsify_onnx.lowering.batch.packing import Packing, packing
from pulsify_onnx.lowering.batch.rows import BatchWriter
from pulsify_onnx.lowering.clock import Measures
from pulsify_onnx.lowering.emitter import Emitter
from pulsify_onnx.lowering.writer import Writer
from pulsify_onnx.model.load import Source
from pulsify_onnx.ort import carrier

VALID_FRAMES = "valid_frames"
"""The input that says how many frames of a pulse are real, where the source has no such name itself."""
SOURCE = "source"
"""Role of a state that the source itself has."""


@dataclass(frozen=True)
class LoweredState:
    """A past/present pair of the pulsed graph; `exact` where it is that of the batch model after every pulse."""

    input: ir.Value
    output: ir.Value
    dtype: ir.DataType
    shape: tuple[int | str, ...]
    node: str
    role: str
    exact: bool = False


@dataclass(frozen=True)
class Lowered:
    """The pulsed graph and its states, in order.

    ``batch``: 1, or its symbol; ``shared``: nodes for which its rows are no streams of their own; ``valid_frames``: the
    input of that number.
    """

    model: ir.Model
    states: tuple[LoweredState, ...]
    batch: int | str
    shared: tuple[str, ...]
    valid_frames: str | None


class Draft(Measures):
    """What lowering has written so far."""

    def __init__(self, plan: Plan, source: Source, pulse: int | None):
        self.plan, self.source, self.pulse = plan, source, pulse
        graph = source.model.graph
        self.node = ""
        reserved = {*plan.inputs, *plan.outputs, *graph.initializers}
        self.graph, batch = Emitter(source.opset, reserved, lambda: self.node), self._batch()
        self.graph.any_pulse = self._zero if pulse is None else None
        self.emit: Writer = self.graph if isinstance(batch, int) else BatchWriter(self.graph, batch, lambda: self.node)
        self.valid_frames = self.emit.name(VALID_FRAMES)
        self.values: dict[str, ir.Value] = {}
        self.memo: dict[object, ir.Value] = {}
        self.inputs: list[ir.Value] = []
        self.controls: list[ir.Value] = []
        self.states: list[LoweredState] = []
        self.remembered: set[int] = set()
        self.packed: dict[str, tuple[ir.Value, Packing]] = {}
        self.clock: ir.Value | None = None
        self.seen: ir.Value | None = None

    def _zero(self) -> ir.Value:
        """int64 vector of one zero, computed from the size of the pulse."""
        frames = self.emit.one("Reshape", self._frames_value(Frames(Fraction(1))), self.emit.ints(1))
        return self.emit.one("Sub", frames, frames)

    def _positional(self, wire: str) -> bool:
        fact = self.plan.wires[wire]
        return isinstance(fact, Stream) and fact.positional

    # rows of a batch

    def _settled(self, value: ir.Value, fact: Fact, extra: int = 0) -> ir.Value:
        """The tensor of a wire, of a stream with `extra` frames, with what its shape says of its rows."""
        told = self.emit is not self.graph  # shapes matter to the writer of a batch only
        if told and isinstance(fact, (Static, Stream, QueryKey, RelativeScores, Running)):
            self.emit.settle(value, self._pulsed(fact, extra), isinstance(fact, Static))
        return value

    def _pulsed(self, fact: Static | Stream | QueryKey | RelativeScores | Running, extra: int) -> Shape:
        """The shape of a wire in a pulse, of a stream with `extra` frames."""
        if not isinstance(fact, Stream):
            return fact.shape
        dims: list[Dim] = list(fact.shape)
        dims[fact.axis] = Merged(fact.around[0], Frames(fact.rate, extra), fact.around[1])
        return tuple(map(self._long, dims))

    def _shared_state(self, shape: Shape) -> None:
        """Note a state of the source that has no rows."""
        if str(self._batch()) not in map(str, shape):
            self.emit.note()

    # states

    def _declare(self, state: State, order: tuple[Length, Length] | None) -> None:
        """A state; `order` are the axes that are merged with its batch, where that is known."""
        moving = (k for k, d in enumerate(state.shape) if d.constant is None)
        packing = self._packing(state.shape, order, state.name, next(moving, state.batch))
        past = ir.Value(name=state.name, shape=ir.Shape(packing.state), type=ir.TensorType(state.dtype))
        self.packed[state.name] = self.emit.state(past, packing.state, len(packing.state)), packing

    def _past(self, name: str) -> ir.Value:
        """The value of a state before this pulse."""
        past, packing = self.packed[name]
        return packing.unpack(self.emit, past)

    def _packing(
        self, shape: Shape, order: tuple[Length, Length] | None, name: str, first: int | None = None
    ) -> Packing:
        """How a tensor of `shape` becomes a state. Raises `CannotStream` where its size is not known."""
        found = packing(shape, self._batch(), order, first)
        if found is None:
            raise CannotStream(
                (
                    Blocker(
                        name,
                        "state",
                        f"it has to remember a tensor of unknown size [{', '.join(map(str, shape))}]",
                        "export with fixed sizes for all axes but batch and time",
                    ),
                )
            )
        if order is None and found.within != ALONE:
            self.emit.note()
        return found

    def _present(self, name: str, value: ir.Value, state: State) -> None:
        past, packing = self.packed[name]
        self.emit.settle(value, state.shape, False)
        self._remember(past, packing.pack(self.emit, value), state.dtype, packing.state, state.role)

    def _remember(
        self, past: ir.Value, value: ir.Value, dtype: ir.DataType, shape: tuple[int | str, ...], role: str
    ) -> None:
        value = self.emit.remembered(value, shape)
        if value.producer() is None or id(value) in self.remembered or not (value.name or "").startswith("pulsify/"):
            value = self.graph.passed_on(value, f"present_{len(self.states)}")
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
        self.states.append(LoweredState(past, value, dtype, shape, self.node, role))
        self.remembered.add(id(value))

    def _counter(self, tag: str, added: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A count of frames: (before, after) this pulse, as states are."""
        batch = self._batch()
        past = self.emit.state(
            ir.Value(name=tag, shape=ir.Shape([batch, 1]), type=ir.TensorType(ir.DataType.INT64)), (batch, 1), 2
        )
        present = self.emit.one("Add", past, added)
        node, self.node = self.node, tag
        self._remember(past, present, ir.DataType.INT64, (batch, 1), tag)
        self.node = node
        return past, present

    def _number(self, rows: ir.Value) -> ir.Value:
        return self.emit.number(self.emit.one("Reshape", rows, self.emit.ints(-1)))

    def _clock(self) -> ir.Value:
        """int64 scalar: base frames before this pulse."""
        if self.clock is None:
            past, self.after = self._counter("clock", self._frames_value(Frames(Fraction(1))))
            self.clock = self._number(past)
        return self.clock

    def _seen(self) -> ir.Value:
        """int64 scalar: base frames of the stream up to and with this pulse, as far as they are real."""
        if self.seen is None:
            if self.plan.ends:
                valid = self._valid_frames()
                _, present = self._counter("seen", self.emit.one("Reshape", valid, self.emit.ints(-1, 1)))
            else:
                self._clock()
                present = self.after
            self.seen = self._number(present)
        return self.seen

    def _valid_frames(self) -> ir.Value:
        if not self.controls:
            valid = ir.Value(
                name=self.valid_frames, shape=ir.Shape([self._batch()]), type=ir.TensorType(ir.DataType.INT64)
            )
            self.controls.append(self.emit.state(valid, [self._batch()], 1))
        return self.controls[0]

    # frames that are not real

    def _masked(self, value: ir.Value, x: Stream, mask: TimedMask, back: int, frames: Frames) -> ir.Value:
        """A window with the border of its mask where its frames are not real."""
        if not mask.start and not mask.end:
            return value
        position = self._position(x.rate, back, frames)
        tests = []
        if mask.start:
            tests.append(
                self.emit.one(
                    "Not", self.emit.one("Less", position, self.emit.constant(np.asarray(mask.low, np.int64)))
                )
            )
        if mask.end:
            tests.append(self.emit.one("Less", position, self._length(mask.high)))
        real = tests[0] if len(tests) == 1 else self.emit.one("And", *tests)
        shape = [1] * x.rank
        shape[x.axis] = -1
        flags = self.emit.one("Reshape", real, self.emit.ints(*shape))
        made = self._chosen(flags, value, self._outside(mask, x, position, back), x.dtype)
        return self.emit.measure(made, self._pulsed(x, int(frames.extra)))

    def _begun(self, past: ir.Value, border: Padding | None, dtype: ir.DataType) -> ir.Value:
        """A history whose frames before the first are those of a constant `border`."""
        if not isinstance(border, Const) or not border.array.any():
            return past
        fresh = self.emit.one("Equal", self._clock(), self.emit.constant(np.asarray(0, np.int64)))
        return self._chosen(self.emit.one("Not", fresh), past, self.emit.constant(border), dtype)

    def _outside(self, mask: TimedMask, x: Stream, position: ir.Value, back: int) -> ir.Value:
        """What the frames of a window, the first of them `back` frames before this pulse, read as that are not real."""
        if isinstance(mask.border, Const):
            return self._outwards(mask, x, position, back, self.emit.constant(mask.border))
        assert isinstance(mask.border, PaddingFrames)
        count = mask.border.frames.array.shape[x.axis]
        index = self.emit.one("Sub", position, self.emit.constant(np.asarray(mask.low - count, np.int64)))
        index = self.emit.one(
            "Max",
            self.emit.one("Min", index, self.emit.constant(np.asarray(count - 1, np.int64))),
            self.emit.constant(np.asarray(0, np.int64)),
        )
        return self.emit.one("Gather", self.emit.constant(mask.border.frames), index, axis=x.axis)

    def _outwards(self, mask: TimedMask, x: Stream, position: ir.Value, back: int, border: ir.Value) -> ir.Value:
        """`border`, or zeros where not even it reaches to."""
        if mask.within is None:
            return border
        first, last = mask.within
        tests = []
        if mask.start and -back < first:
            tests.append(self.emit.one("Less", self.emit.constant(np.asarray(first - 1, np.int64)), position))
        if mask.end:
            low = self.emit.constant(np.asarray(mask.low, np.int64))
            any_real = self.emit.one("Less", low, self._length(mask.high))
            tests.append(self.emit.one("Less", position, self.emit.one("Where", any_real, self._length(last), low)))
        if not tests:
            return border
        inside = tests[0] if len(tests) == 1 else self.emit.one("And", *tests)
        flags = self.emit.one("Reshape", inside, self.emit.ints(*(-1 if k == x.axis else 1 for k in range(x.rank))))
        return self._chosen(flags, border, self.emit.constant(np.zeros([1] * x.rank, x.dtype.numpy())), x.dtype)

    def _chosen(self, flags: ir.Value, value: ir.Value, border: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` where `flags`, else `border`; by And and Or where both are booleans."""
        if dtype == ir.DataType.BOOL:
            real = self.emit.one("And", flags, value)
            if border.const_value is not None and not border.const_value.numpy().any():
                return real
            return self.emit.one("Or", real, self.emit.one("And", self.emit.one("Not", flags), border))
        wider = carrier(dtype)
        if wider == dtype:
            return self.emit.one("Where", flags, value, border)
        cast = self.emit.one("Cast", value, to=int(wider)), self.emit.one("Cast", border, to=int(wider))
        return self.emit.one("Cast", self.emit.one("Where", flags, *cast), to=int(dtype))

    # labels of shapes
