"""How the pulsed graph measures: positions of frames, lengths, sizes of pulses and their labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Static, Stream
from pulsify_onnx.algebra.length import TIME, Extreme, Floor, Length, Symbol
from pulsify_onnx.algebra.places import Here, Where
from pulsify_onnx.algebra.plan import Dim, Frames, Merged, Plan
from pulsify_onnx.errors import Blocker, CannotStream
from pulsify_onnx.lowering.writer import Writer


class Measures(ABC):
    """Numbers of frames and sizes as tensors, for a plan whose graph is being written."""

    plan: Plan
    pulse: int | None
    node: str
    emit: Writer
    values: dict[str, ir.Value]
    memo: dict[object, ir.Value]

    @abstractmethod
    def _clock(self) -> ir.Value:
        """int64 scalar: base frames before this pulse."""

    @abstractmethod
    def _seen(self) -> ir.Value:
        """int64 scalar: base frames of the stream up to and with this pulse, as far as they are real."""

    def _stream(self, wire: str) -> Stream:
        fact = self.plan.wires[wire]
        assert isinstance(fact, Stream), wire
        return fact

    def _batch(self) -> int | str:
        """The batch dimension: symbolic as in the source, else 1."""
        for name in self.plan.inputs:
            fact = self.plan.wires[name]
            if isinstance(fact, Stream):
                for k, d in enumerate(fact.shape):
                    if k != fact.axis and d.constant is None:
                        return str(d)
        return 1

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
            return self.emit.constant(
                np.arange(self._count(frames), dtype=np.int64) + here.back - self._count(Frames(rate))
            )
        zero, one = self.emit.constant(np.asarray(0, np.int64)), self.emit.constant(np.asarray(1, np.int64))
        ramp = self.emit.one("Range", zero, self._frames_value(frames), one)
        return self.emit.one("Sub", ramp, self._frames_value(Frames(rate, -here.back)))

    def _count(self, frames: Frames) -> int:
        assert self.pulse is not None
        count = frames.rate * self.pulse + int(frames.extra)
        assert count.denominator == 1 and count > 0, (frames, self.pulse)
        return int(count)

    def _frames_value(self, frames: Frames) -> ir.Value:
        """int64 scalar: a number of frames."""
        if self.pulse is not None:
            return self.emit.constant(np.asarray(self._count(frames), np.int64))
        base = next(n for n in self.plan.inputs if isinstance(f := self.plan.wires[n], Stream) and f.rate == 1)
        shape = self.emit.one("Shape", self.values[base])
        value = self.emit.one(
            "Gather", shape, self.emit.constant(np.asarray(self._stream(base).axis, np.int64)), axis=0
        )
        return self._affine(value, frames.rate, int(frames.extra))

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
                scalar = (
                    self._frames_value(v)
                    if isinstance(v, Frames)
                    else self._product(v)
                    if isinstance(v, Merged)
                    else self._size(v)
                )
                parts.append(self.emit.one("Reshape", scalar, self.emit.ints(1)))
        shape = parts[0] if len(parts) == 1 else self.emit.one("Concat", *parts, axis=0)
        return self.emit.sized(shape, tuple(map(self._long, values)))

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
        lift = max(0, -min(0, *(atom.of.at(n) for n in range(2)))) // atom.by + 1
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
        raise CannotStream(
            (
                Blocker(
                    self.node,
                    "shape",
                    f"it needs the size {name}, which no input tells",
                    "export with fixed sizes for all axes but batch and time",
                ),
            )
        )

    def _long(self, d: Dim) -> Length:
        """A dimension of a pulse as a length."""
        if isinstance(d, Merged):
            return d.slower * self._long(d.frames) * d.faster
        if isinstance(d, Frames):
            return (
                Length.of(self._count(d)) if self.pulse is not None else Length.symbol(" pulse") * d.rate + int(d.extra)
            )
        return Length.of(d)

    def _label(self, d: Length) -> int | str:
        return d.constant if d.constant is not None else str(d)

    def _frames_label(self, rate: Fraction) -> int | str:
        if self.pulse is not None:
            return self._count(Frames(rate))
        shapes = [f.shape for f in map(self.plan.wires.get, self.plan.inputs) if isinstance(f, (Static, Stream))]
        taken, word = {name for shape in shapes for d in shape for name in d.symbols()}, "pulse"
        while any(name == word or name.startswith(f"{word}_x") for name in taken):
            word += "_"
        return word if rate == 1 else f"{word}_x{rate}"
