"""The pulsed graph under construction: its states, clocks, positions and lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.emit import Emitter
from pulsify_onnx.extent import TIME, Extreme, Floor, Length, Symbol
from pulsify_onnx.facts import Const, Fact, Onset, Pair, Prefix, Shape, Skew, Static, Stream
from pulsify_onnx.layouts import MIXED, SHARED, Layout
from pulsify_onnx.plan import Dim, Frames, Mask, Merged, Plan, State
from pulsify_onnx.rows import RowEmitter
from pulsify_onnx.source import Source

VALID_FRAMES = "valid_frames"
SOURCE = "source"
"""Role of a state that the source itself has."""

WITHOUT_WHERE = {ir.DataType.INT16: ir.DataType.INT32, ir.DataType.UINT16: ir.DataType.INT32, ir.DataType.UINT64: ir.DataType.INT64,
                 ir.DataType.BFLOAT16: ir.DataType.FLOAT}
"""Types that onnxruntime has no Where for, and the wider ones that carry them."""


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
    """The pulsed graph and its states, in order. ``batch``: 1, or its symbol; ``shared``: nodes for which its rows are no streams of their own."""

    model: ir.Model
    states: tuple[LoweredState, ...]
    batch: int | str
    shared: tuple[str, ...]


@dataclass(frozen=True)
class Here:
    """Where a positional step is evaluated: `back` frames before the pulse, `extra` frames more than one."""

    back: int = 0
    extra: int = 0

    def side(self, role: int) -> Here:
        """The window of one side: the only one."""
        return self


@dataclass(frozen=True)
class Both:
    """Where a pair is evaluated: a window of either side."""

    a: Here
    b: Here

    def side(self, role: int) -> Here:
        """The window of side `role`; 2: the offsets of keys from queries, which begin `back` less a pulse."""
        if role == 2:
            return Here(self.a.back - self.b.back - self.a.extra + 1, self.a.extra + self.b.extra - 1)
        return self.b if role else self.a


Where = Here | Both

NOW = Here()


class Draft:
    """What lowering has written so far, and how it measures: states, the clock, positions, lengths and their labels."""

    def __init__(self, plan: Plan, source: Source, pulse: int | None):
        self.plan, self.source, self.pulse = plan, source, pulse
        graph = source.model.graph
        self.node = ""
        reserved = {*plan.inputs, *plan.outputs, VALID_FRAMES, *graph.initializers}
        self.rows = RowEmitter(source.opset, reserved, lambda: self.node) if self._batch() != 1 else None
        self.emit = self.rows or Emitter(source.opset, reserved)
        self.values: dict[str, ir.Value] = {}
        self.memo: dict[object, ir.Value] = {}
        self.inputs: list[ir.Value] = []
        self.controls: list[ir.Value] = []
        self.states: list[LoweredState] = []
        self.remembered: set[int] = set()
        self.pasts: dict[str, ir.Value] = {}
        self.clock: ir.Value | None = None
        self.seen: ir.Value | None = None

    def _stream(self, wire: str) -> Stream:
        fact = self.plan.wires[wire]
        assert isinstance(fact, Stream), wire
        return fact

    def _positional(self, wire: str) -> bool:
        fact = self.plan.wires[wire]
        return isinstance(fact, Stream) and fact.positional

    # rows of a batch

    def _settled(self, value: ir.Value, fact: Fact) -> ir.Value:
        """The tensor of a wire, with what its shape says of its rows."""
        if self.rows is not None and isinstance(fact, (Static, Stream, Pair, Skew, Prefix)):
            shape = self._pulsed(fact, 0)
            named = [k for k, d in enumerate(shape) if str(self._batch()) in d.symbols()]
            rows = named[0] if len(named) == 1 else MIXED if named or not isinstance(fact, Static) else SHARED
            self.rows.settle(value, shape, rows, len(named) == 1 and str(shape[named[0]]) == self._batch())
        return value

    def _pulsed(self, fact: Static | Stream | Pair | Skew | Prefix, extra: int) -> Shape:
        """The shape of a wire in a pulse, of a stream with `extra` frames."""
        if not isinstance(fact, Stream):
            return fact.shape
        dims: list[Dim] = list(fact.shape)
        dims[fact.axis] = Merged(fact.around[0], Frames(fact.rate, extra), fact.around[1])
        return tuple(map(self._long, dims))

    def _long(self, d: Dim) -> Length:
        """A dimension of a pulse as a length."""
        if isinstance(d, Merged):
            return d.slower * self._long(d.frames) * d.faster
        if isinstance(d, Frames):
            return Length.of(self._count(d)) if self.pulse is not None else Length.symbol(" pulse") * d.rate + d.extra
        return Length.of(d)

    def _whole(self, value: ir.Value) -> ir.Value:
        """A tensor for what takes no number per row: that of the first row."""
        return value if self.rows is None else self.rows.first(value)

    def _placed(self, past: ir.Value, shape: Sequence[int | str], rank: int | None = None) -> ir.Value:
        """A state, whose first axis is the batch; of less than its dimensions with `rank`, it is one with a value per row."""
        if self.rows is not None:
            own = rank is not None and rank < len(shape)
            self.rows.place(past, Layout(rank, SHARED, True, tuple(d == 1 for d in shape[1:])) if own else
                            Layout(len(shape), 0 if shape[0] == self._batch() else SHARED))
        return past

    def _shared_state(self, shape: Shape) -> None:
        """Note a state of the source that has no rows."""
        if self.rows is not None and str(self._batch()) not in map(str, shape):
            self.rows.note()

    # states

    def _declare(self, state: State) -> None:
        shape = [self._label(d) if isinstance(d, Length) else int(d) for d in state.shape if not isinstance(d, (Frames, Merged))]
        past = ir.Value(name=state.name, shape=ir.Shape(shape), type=ir.TensorType(state.dtype))
        self.pasts[state.name] = self._placed(past, shape)

    def _present(self, name: str, value: ir.Value, state: State) -> None:
        past = self.pasts[name]
        shape = tuple(d if isinstance(d, int) else str(d.value) for d in past.shape or ())
        self._remember(past, value, state.dtype, shape, state.role)

    def _remember(self, past: ir.Value, value: ir.Value, dtype: ir.DataType, shape: tuple[int | str, ...], role: str) -> None:
        if self.rows is not None:
            if len(shape) != self.rows.axes(value):
                value = self.rows.first(value)
            if shape[0] != self._batch() or not (self.rows.layout(value).rows == 0 or self.rows.layout(value).lifted):
                self.rows.note()
        if value.producer() is None or id(value) in self.remembered or not (value.name or "").startswith("pulsify/"):
            node = ir.Node("", "Identity", [value], name=self.emit.name(f"pulsify/present_{len(self.states)}"))
            self.emit.nodes.append(node)
            value = node.outputs[0]
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
        self.states.append(LoweredState(past, value, dtype, shape, self.node, role))
        self.remembered.add(id(value))

    def _counter(self, tag: str, added: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A count of frames: (before, after) this pulse, as scalars of each row."""
        batch = self._batch()
        past = self._placed(ir.Value(name=tag, shape=ir.Shape([batch, 1]), type=ir.TensorType(ir.DataType.INT64)), (batch, 1))
        present = self.emit.one("Add", past, added)
        node, self.node = self.node, tag
        self._remember(past, present, ir.DataType.INT64, (batch, 1), tag)
        self.node = node
        return self._number(past), self._number(present)

    def _number(self, rows: ir.Value) -> ir.Value:
        flat = self.emit.one("Reshape", rows, self.emit.ints(-1))
        if self.rows is not None:
            return self.rows.per_row(flat)
        return self.emit.one("Gather", flat, self.emit.constant(np.asarray(0, np.int64)), axis=0)

    def _clock(self) -> ir.Value:
        """int64 scalar: base frames before this pulse."""
        if self.clock is None:
            self.clock, self.after = self._counter("clock", self._frames_value(Frames(Fraction(1))))
        return self.clock

    def _seen(self) -> ir.Value:
        """int64 scalar: base frames of the stream up to and with this pulse, as far as they are real."""
        if self.seen is None:
            if self.plan.options.end_of_stream:
                valid = self._valid_frames()
                _, self.seen = self._counter("seen", self.emit.one("Reshape", valid, self.emit.ints(-1, 1)))
            else:
                self._clock()
                self.seen = self.after
        return self.seen

    def _valid_frames(self) -> ir.Value:
        if not self.controls:
            valid = ir.Value(name=VALID_FRAMES, shape=ir.Shape([self._batch()]), type=ir.TensorType(ir.DataType.INT64))
            self.controls.append(self._placed(valid, [self._batch()]))
        return self.controls[0]

    def _batch(self) -> int | str:
        """The batch dimension: symbolic as in the source, else 1."""
        for name in self.plan.inputs:
            fact = self.plan.wires[name]
            if isinstance(fact, Stream):
                for k, d in enumerate(fact.shape):
                    if k != fact.axis and d.constant is None:
                        return str(d)
        return 1

    # positions and lengths

    def _start(self, rate: Fraction, delay: int) -> ir.Value:
        clock = self._clock()
        if rate.numerator != 1:
            clock = self.emit.one("Mul", clock, self.emit.constant(np.asarray(rate.numerator, np.int64)))
        if rate.denominator != 1:
            clock = self.emit.one("Div", clock, self.emit.constant(np.asarray(rate.denominator, np.int64)))
        return self.emit.one("Sub", clock, self.emit.constant(np.asarray(delay, np.int64))) if delay else clock

    def _position(self, rate: Fraction, delay: int, frames: Frames) -> ir.Value:
        """int64 [frames]: position of each frame of a window, counted in the concatenated pulses less `delay`."""
        start = self._start(rate, 0)
        if self.pulse is not None:
            count = self._count(frames)
            return self.emit.one("Add", start, self.emit.constant(np.arange(count, dtype=np.int64) - delay))
        zero, one = self.emit.constant(np.asarray(0, np.int64)), self.emit.constant(np.asarray(1, np.int64))
        ramp = self.emit.one("Range", zero, self._frames_value(frames), one)
        return self.emit.one("Add", self._start(rate, delay), ramp)

    def _offsets(self, rate: Fraction, here: Here) -> ir.Value:
        """int64: keys minus queries of two windows, one entry per offset that occurs there."""
        frames = Frames(2 * rate, here.extra)
        if self.pulse is not None:
            return self.emit.constant(np.arange(self._count(frames), dtype=np.int64) + here.back - self._count(Frames(rate)))
        zero, one = self.emit.constant(np.asarray(0, np.int64)), self.emit.constant(np.asarray(1, np.int64))
        ramp = self.emit.one("Range", zero, self._frames_value(frames), one)
        return self.emit.one("Sub", ramp, self._frames_value(Frames(rate, -here.back)))

    def _count(self, frames: Frames) -> int:
        assert self.pulse is not None
        count = frames.rate * self.pulse + frames.extra
        assert count.denominator == 1 and count > 0, (frames, self.pulse)
        return int(count)

    def _frames_value(self, frames: Frames) -> ir.Value:
        """int64 scalar: a number of frames."""
        if self.pulse is not None:
            return self.emit.constant(np.asarray(self._count(frames), np.int64))
        base = next(n for n in self.plan.inputs if isinstance(f := self.plan.wires[n], Stream) and f.rate == 1)
        shape = self.emit.one("Shape", self.values[base])
        value = self.emit.one("Gather", shape, self.emit.constant(np.asarray(self._stream(base).axis, np.int64)), axis=0)
        return self._affine(value, frames.rate, frames.extra)

    def _affine(self, value: ir.Value, rate: Fraction, extra: int) -> ir.Value:
        if rate.numerator != 1:
            value = self.emit.one("Mul", value, self.emit.constant(np.asarray(rate.numerator, np.int64)))
        if rate.denominator != 1:
            value = self.emit.one("Div", value, self.emit.constant(np.asarray(rate.denominator, np.int64)))
        return self.emit.one("Add", value, self.emit.constant(np.asarray(extra, np.int64))) if extra else value

    def _dims(self, dims: tuple[Dim, ...], here: Where) -> ir.Value:
        sized = [self._sized(d, here) for d in dims]
        values = [self._count(d) if isinstance(d, Frames) and self.pulse is not None else d for d in sized]
        if all(isinstance(v, int) for v in values):
            return self.emit.ints(*(v for v in values if isinstance(v, int)))
        parts = []
        for v in values:
            if isinstance(v, int):
                parts.append(self.emit.ints(v))
            else:
                scalar = self._frames_value(v) if isinstance(v, Frames) else self._product(v) if isinstance(v, Merged) else self._size(v)
                parts.append(self.emit.one("Reshape", scalar, self.emit.ints(1)))
        shape = parts[0] if len(parts) == 1 else self.emit.one("Concat", *parts, axis=0)
        if self.rows is not None:
            batch = [k for k, d in enumerate(dims) if isinstance(d, Length) and str(d) == self._batch()]
            self.rows.sized(shape, tuple(map(self._long, values)), batch[0] if len(batch) == 1 else None)
        return shape

    def _sized(self, d: Dim, here: Where) -> Dim:
        """A dimension of a window that begins elsewhere; a product of numbers is one."""
        if isinstance(d, Frames):
            return Frames(d.rate, d.extra + here.side(d.role).extra)
        if not isinstance(d, Merged):
            return d
        frames = Frames(d.frames.rate, d.frames.extra + here.side(d.frames.role).extra)
        rest = (d.slower * d.faster).constant
        return rest * self._count(frames) if rest is not None and self.pulse is not None else replace(d, frames=frames)

    def _product(self, d: Merged) -> ir.Value:
        """int64 scalar: frames times the sizes of the axes merged with them."""
        return self.emit.one("Mul", self._size(d.slower * d.faster), self._frames_value(d.frames))

    def _size(self, length: Length) -> ir.Value:
        """int64 scalar: a symbolic dimension, read from the input that has it."""
        return self._polynomial(length)

    def _length(self, length: Length) -> ir.Value:
        """int64 scalar: a length for the frames seen so far."""
        return self._polynomial(length)

    def _polynomial(self, length: Length) -> ir.Value:
        key = ("length", length)
        by = math.lcm(*(coefficient.denominator for _, coefficient in length.terms))
        if by > 1:
            return self._atom(Floor(length * by, by))
        if key not in self.memo:
            total: ir.Value | None = None
            for monomial, coefficient in length.terms:
                term: ir.Value | None = None
                for atom in monomial:
                    value = self._atom(atom)
                    term = value if term is None else self.emit.one("Mul", term, value)
                factor = self.emit.constant(np.asarray(int(coefficient), np.int64))
                term = factor if term is None else term if coefficient == 1 else self.emit.one("Mul", term, factor)
                total = term if total is None else self.emit.one("Add", total, term)
            self.memo[key] = total if total is not None else self.emit.constant(np.asarray(0, np.int64))
        return self.memo[key]

    def _atom(self, atom: Symbol | Floor | Extreme) -> ir.Value:
        if isinstance(atom, Symbol):
            return self._seen() if atom.name == TIME else self._dimension(atom.name)
        if isinstance(atom, Extreme):
            return self.emit.one("Max" if atom.largest else "Min", self._polynomial(atom.a), self._polynomial(atom.b))
        by = self.emit.constant(np.asarray(atom.by, np.int64))
        value = self._polynomial(atom.of)
        # ONNX divides towards zero: lift what may be negative above it first
        lift = max(0, -min(0, min(atom.of.at(n) for n in range(2)))) // atom.by + 1
        lifted = self.emit.one("Add", value, self.emit.constant(np.asarray(lift * atom.by, np.int64)))
        return self.emit.one("Sub", self.emit.one("Div", lifted, by), self.emit.constant(np.asarray(lift, np.int64)))

    def _dimension(self, name: str) -> ir.Value:
        for wire in self.plan.inputs:
            fact = self.plan.wires[wire]
            if isinstance(fact, (Static, Stream)):
                for k, d in enumerate(fact.shape):
                    if d == Length.symbol(name):
                        shape = self.emit.one("Shape", self.values[wire])
                        return self.emit.one("Gather", shape, self.emit.constant(np.asarray(k, np.int64)), axis=0)
        raise AssertionError(f"no input has the dimension {name}")

    # frames that are not real

    def _outside(self, mask: Mask, x: Stream, position: ir.Value) -> ir.Value:
        """What frames read as that are not real."""
        if isinstance(mask.border, Const):
            return self.emit.constant(mask.border)
        assert isinstance(mask.border, Onset)
        count = mask.border.frames.array.shape[x.axis]
        index = self.emit.one("Sub", position, self.emit.constant(np.asarray(mask.low - count, np.int64)))
        index = self.emit.one("Max", self.emit.one("Min", index, self.emit.constant(np.asarray(count - 1, np.int64))), self.emit.constant(np.asarray(0, np.int64)))
        return self.emit.one("Gather", self.emit.constant(mask.border.frames), index, axis=x.axis)

    def _chosen(self, flags: ir.Value, value: ir.Value, border: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` where `flags`, else `border`; onnxruntime's Where takes no booleans and not every integer."""
        if dtype == ir.DataType.BOOL:
            real = self.emit.one("And", flags, value)
            if border.const_value is not None and not border.const_value.numpy().any():
                return real
            return self.emit.one("Or", real, self.emit.one("And", self.emit.one("Not", flags), border))
        wider = WITHOUT_WHERE.get(dtype)
        if wider is None:
            return self.emit.one("Where", flags, value, border)
        cast = self.emit.one("Cast", value, to=int(wider)), self.emit.one("Cast", border, to=int(wider))
        return self.emit.one("Cast", self.emit.one("Where", flags, *cast), to=int(dtype))

    # labels of shapes

    def _label(self, d: Length) -> int | str:
        return d.constant if d.constant is not None else str(d)

    def _frames_label(self, rate: Fraction) -> int | str:
        if self.pulse is not None:
            return self._count(Frames(rate))
        return "pulse" if rate == 1 else f"pulse_x{rate}"
