"""Constants that have an entry for each frame of the export."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import QueryKey, ShapeTensor, Static, Stream
from pulsify_onnx.arrays import Array
from pulsify_onnx.prepare.fixed_length.export import EXPORT
from pulsify_onnx.prepare.fixed_length.masks import ByDistance, band_of_table, distances_of
from pulsify_onnx.prepare.fixed_length.regroup import steady
from pulsify_onnx.prepare.fixed_length.rewriting import Rewriting
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.traits import Trait, declared, has
from pulsify_onnx.runtime.sidecar import ReadAnew


class Tables(Rewriting):
    """A node that a stream and such constants meet in."""

    def broadcast(self) -> None:
        """Constants beside a stream."""
        axes: set[int] = set()
        for fact in self.node.facts:
            if isinstance(fact, Stream):
                axes.add(fact.axis - fact.rank)
            elif isinstance(fact, QueryKey):
                axes |= {a - len(fact.shape) for a in fact.axes}
        for k, fact in enumerate(self.node.facts):
            if isinstance(fact, (Static, ShapeTensor)):
                mine = [len(fact.shape) + a for a in sorted(axes) if len(fact.shape) + a >= 0]
                self.table(k, [a for a in mine if shape_of(fact)[a].constant not in (None, 1)], alone=True)
                if isinstance(fact, Static) and has(self.node, Trait.MULTIPLIES):
                    self.factor(k)

    def factor(self, index: int) -> None:
        """Refuse a factor of all frames that follows from their number."""
        array = self.array(index)
        if array is None or array.dtype.kind not in "iuf" or array.size != 1:
            return
        value = abs(float(array.reshape(-1)[0]))
        own = {self.export.at(f.extent) for f in self.node.facts if isinstance(f, Stream)}
        n = next((n for n in sorted({self.export.frames, *own}) if n >= 4 and _follows(value, n)), None)
        if n is not None:
            self.ask(index, f"is {value:g}, which may be a number or follow from the {n} frames of the export")

    def masked(self) -> None:
        """The mask of an attention in one node: queries × keys."""
        index, query = declared(self.node, Trait.MASK), self.node.fact(0)
        mask = self.node.fact(index)
        if isinstance(mask, Static) and isinstance(query, Stream) and len(mask.shape) > 1:
            last = [len(mask.shape) - 2, len(mask.shape) - 1]
            if all(mask.shape[a].constant == self.export.at(query.extent) for a in last):
                self.table(index, last, alone=True)

    def concat(self) -> None:
        """Constants beside a stream, along another axis."""
        streams = [f for f in self.node.facts if isinstance(f, Stream)]
        if streams and self.node.axis(streams[0].rank) != streams[0].axis:
            for k, fact in enumerate(self.node.facts):
                if isinstance(fact, Static):
                    self.table(k, [streams[0].axis], alone=False)

    def recurrent(self) -> None:
        """Lengths that are the whole stream's, and initial states where time is the batch."""
        x, layout = self.node.facts[0], self.node.attr("layout", 0)
        if not isinstance(x, Stream):
            return
        n = self.export.at(x.extent)
        if x.axis == layout:
            lengths = self.numbers(4) if self.node.fact(4) is not None else None
            if lengths is not None and set(lengths) == {n}:
                self.export.changes.append(
                    ReadAnew(
                        node=self.node.name, constant=self.constant(4), was=str(lengths), now="the length of the stream"
                    )
                )
                self.raw.replace_input_with(4, None)
        elif x.axis == 1 - layout:
            for k in (5, 6):
                if isinstance(self.node.fact(k), Static):
                    self.table(k, [1 - layout], alone=False)

    def gather(self) -> None:
        """The last frame by its number."""
        fact, indices = self.node.facts[0], self.array(1)
        if not isinstance(fact, Stream) or indices is None or self.node.axis(fact.rank, default=0) != fact.axis:
            return
        n = self.export.at(fact.extent)
        if indices.size == 1 and n > 1 and int(indices.reshape(-1)[0]) == n - 1:
            self.integers(1, [-1])
        elif indices.ndim and indices.size > 1:
            self.frames_of(fact, indices)

    def frames_of(self, fact: Stream, indices: Array) -> None:
        """Frames at a fixed hop: as many as fit."""
        n = self.export.at(fact.extent)
        found = []
        for axis in range(indices.ndim):
            count, step = indices.shape[axis], steady(indices, axis)
            if step is None or step < 1:
                continue
            first = np.take(indices, [0], axis)
            span = int(first.max()) + 1
            if first.min() >= 0 and (n - span) // int(step) + 1 == count:
                found.append((int(step), axis, first, span))
        if not found:
            return
        if len(found) > 1 and sorted(found, key=lambda f: -f[0])[0][0] == sorted(found, key=lambda f: -f[0])[1][0]:
            self.refuse(1, "picks frames of the stream in two ways that fit")
        step, axis, first, span = max(found, key=lambda f: f[0])
        assert self.raw.inputs[0] is not None
        if first.size > 1 and step >= n:
            self.refuse(1, f"steps over {step} frames")
        count = self.length(self.raw.inputs[0], fact.axis, Fraction(1, step), step - span)
        self.put(1, self.ramp(count, first, step, axis, indices), f"positions, {step} frames apart")

    def ramp(self, count: ir.Value, first: Array, step: float, axis: int, like: Array) -> ir.Value:
        """``first + step * i`` along `axis`, for `count` (int64 [1]) indices i."""
        zero, one = self.value(np.asarray(0, np.int64)), self.value(np.asarray(1, np.int64))
        squeezed = self.op("Reshape", count, self.value(np.asarray([], np.int64)))
        line = self.op("Range", zero, squeezed, one)
        if like.dtype != np.int64:
            line = self.op("Cast", line, to=int(ir.DataType.from_numpy(like.dtype)))
        if step != 1:
            line = self.op("Mul", line, self.value(np.asarray(step, like.dtype)))
        shape = [1] * like.ndim
        shape[axis] = -1
        line = self.op("Reshape", line, self.value(np.asarray(shape, np.int64)))
        return self.op("Add", line, self.value(first)) if first.any() or first.size > 1 else line

    def table(self, index: int, axes: list[int], alone: bool) -> None:
        """A static input with an entry for each frame along `axes`; `alone`: broadcasting brings it to the length
        again.
        """
        fact = self.node.facts[index]
        assert isinstance(fact, (Static, ShapeTensor))
        sizes = [shape_of(fact)[a].constant or 0 for a in axes]
        if not axes or all(n <= 1 for n in sizes):
            return
        array = self.array(index)
        source = self.raw.inputs[index]
        assert source is not None
        if array is None and not all(self._same_frames(source, a) for a in axes):
            array = self._expanded(source)
        if array is None and not all(self._same_frames(source, a) for a in axes):
            self.refuse(
                index,
                f"has values for each of {sizes[0]} frames, and none for those of a longer stream",
                hint="make it an input that streams (--axis)",
            )
        step = None if array is None or len(axes) > 1 else steady(array, axes[0])
        if array is not None and step is None:
            if len(axes) == 2:
                self.mask(index, axes, array)
                return
            self.refuse(
                index,
                f"has other values for each of {sizes[0]} frames, and none for those of a longer stream",
                hint=f"compute positions in the graph; {EXPORT}",
            )
        stream, at = self._beside(axes[0] - len(fact.shape))
        if step:
            assert array is not None
            first = np.take(array, [0], axes[0])
            if (
                sizes[0] < 4
                or step < 0
                or step >= sizes[0]
                or step != int(step)
                or (first != first.astype(np.int64)).any()
                or (first < 0).any()
                or (2 * first > sizes[0]).any()
            ):
                self.refuse(
                    index,
                    f"counts over {sizes[0]} frames in a way that may depend on their number",
                    hint=f"compute positions in the graph; {EXPORT}",
                )
            count = self.length(stream, at, Fraction(1))
            self.put(index, self.ramp(count, first, step, axes[0], array), "positions")
            return
        if array is not None:
            for a in axes:
                array = np.take(array, [0], a)
            row = self.value(array)
        else:
            zero, one, along = (self.value(np.asarray(v, np.int64)) for v in ([0] * len(axes), [1] * len(axes), axes))
            row = self.op("Slice", source, zero, one, along)
        if not alone:
            shape = [
                self.length(stream, at, Fraction(1)) if k == axes[0] else self.value(np.asarray([1], np.int64))
                for k in range(len(fact.shape))
            ]
            row = self.op("Expand", row, self.op("Concat", *shape, axis=0))
        self.put(index, row, "the same for every frame")
        self._drop(source)

    def mask(self, index: int, axes: list[int], array: Array) -> None:
        """A table of frames × frames, computed from positions where it shows a band or chunks."""
        rows, columns = axes
        n = array.shape[rows]
        found = band_of_table(array.reshape(n, -1)) if array.size == n * n else None
        if found is None:
            spread = (
                distances_of(array)
                if (rows, columns) == (array.ndim - 2, array.ndim - 1) and array.shape[columns] == n
                else None
            )
            if spread is None:
                self.refuse(
                    index,
                    f"is a table of {n} × {array.shape[columns]} frames, which fits one length only",
                    hint=f"compute the mask from positions; {EXPORT}",
                )
            self.distances(index, array, spread)
            return
        distance = self.apart(rows, columns, array.ndim, found.chunk)
        tests = []
        if found.upto is not None:
            tests.append(self.op("Less", distance, self.value(np.asarray(found.upto + 1, np.int64))))
        if found.after is not None:
            tests.append(self.op("Less", self.value(np.asarray(found.after, np.int64)), distance))
        test = self.op("And", *tests) if len(tests) > 1 else tests[0]
        if array.dtype != np.bool_:
            made = self.op("Where", test, self.value(found.inside), self.value(found.outside))
        else:
            made = test if found.inside else self.op("Not", test)
        what = "positions" if found.chunk == 1 else f"chunks of {found.chunk}"
        self.put(index, made, f"a mask of {what}, {found.after} < key - query <= {found.upto}")

    def apart(self, rows: int, columns: int, rank: int, chunk: int = 1) -> ir.Value:
        """int64: column minus row, in chunks, at these axes of a tensor of `rank`."""
        sides = []
        for at in (rows, columns):
            stream, axis = self._beside(at - rank)
            line = self.ramp(
                self.length(stream, axis, Fraction(1)), np.zeros([1], np.int64), 1, at, np.zeros([1] * rank, np.int64)
            )
            sides.append(self.op("Div", line, self.value(np.asarray(chunk, np.int64))) if chunk > 1 else line)
        return self.op("Sub", sides[1], sides[0])

    def distances(self, index: int, array: Array, found: ByDistance) -> None:
        """A bias by distance, looked up where it is near and drawn on beyond."""
        distance, shape = self.apart(0, 1, 2), (*found.near.shape[:-1], 1, 1)
        low, high = (self.value(np.asarray(v, np.int64)) for v in (found.low, found.high))
        near = self.op("Sub", self.op("Min", self.op("Max", distance, low), high), low)
        made = self.op("Gather", self.value(found.near), near, axis=array.ndim - 2)
        for k, (a, b) in enumerate(((low, distance), (distance, high))):
            if found.steps[..., k].any():
                far = self.op("Max", self.op("Sub", a, b), self.value(np.asarray(0, np.int64)))
                far = self.op("Cast", far, to=int(ir.DataType.from_numpy(array.dtype)))
                made = self.op("Add", made, self.op("Mul", far, self.value(found.steps[..., k].reshape(shape))))
        self.put(index, made, f"values by key - query, from {found.low} to {found.high} and so on")

    def counted(self) -> None:
        """A number beside a value over the whole stream: it may be the count of frames."""
        for k, fact in enumerate(self.node.facts):
            array = self.array(k) if isinstance(fact, Static) and fact.dtype != ir.DataType.STRING else None
            if (
                array is None
                or array.dtype.kind not in "iuf"
                or not array.size
                or not (array == array.reshape(-1)[0]).all()
            ):
                continue
            value = float(array.reshape(-1)[0])
            n = next((n for n in self.export.lengths() if n >= 8 and _tells(value, n)), None)
            if n is not None:
                self.ask(k, f"is {value:g}, which may be a number or follow from the {n} frames of the export")

    def _beside(self, axis: int) -> tuple[ir.Value, int]:
        """An input that streams, and its stream axis."""
        for value, fact in zip(self.raw.inputs, self.node.facts):
            if isinstance(fact, Stream) and value is not None:
                return value, fact.axis
        for value, fact in zip(self.raw.inputs, self.node.facts):
            if isinstance(fact, QueryKey) and value is not None:
                return value, axis % len(fact.shape)
        raise AssertionError("only nodes with a stream are rewritten")

    def _expanded(self, value: ir.Value) -> Array | None:
        """A constant behind the nodes that bring it to its shape, as they leave it."""
        fact, made = self.export.facts.get(value.name or ""), value.producer()
        if not isinstance(fact, Static):
            return None
        known = fact.value.array if fact.value is not None else self.export.source.constant(fact.wire)
        if known is not None or made is None or not has(made, Trait.EXPANDS, Trait.IDENTITY) or made.inputs[0] is None:
            return known
        before, shape = self._expanded(made.inputs[0]), [d.constant for d in fact.shape]
        if before is None or None in shape:
            return None
        return np.broadcast_to(before, [d or 0 for d in shape])

    def _drop(self, value: ir.Value) -> None:
        """Take out the nodes that bring a constant to the length of the export, where nothing reads it any more."""
        made = value.producer()
        while made is not None and has(made, Trait.EXPANDS, Trait.IDENTITY):
            out, before = made.outputs[0], made.inputs[0]
            if out.uses() or out.is_graph_output() or made.graph is None:
                return
            made.graph.remove(made, safe=True)
            made = None if before is None else before.producer()

    def _same_frames(self, value: ir.Value, axis: int) -> bool:
        """Whether a static value was repeated along `axis`."""
        made = value.producer()
        if made is None or not has(made, Trait.REPEATS, Trait.FILLS, Trait.IDENTITY) or made.inputs[0] is None:
            return False
        if has(made, Trait.FILLS):
            return True
        before = self.export.facts.get(made.inputs[0].name or "")
        after = self.export.facts.get(value.name or "")
        if not isinstance(before, Static) or not isinstance(after, Static):
            return False
        if has(made, Trait.IDENTITY):
            return self._same_frames(made.inputs[0], axis)
        own = axis - len(after.shape) + len(before.shape)
        return own < 0 or before.shape[own].constant == 1


def _follows(value: float, frames: int) -> bool:
    """Whether a factor is the number of frames, or what is often computed from it; whole square roots are also those
    of other sizes.
    """
    found = [
        float(frames),
        float(frames - 1),
        math.log(frames),
        *([] if math.isqrt(frames) ** 2 == frames else [math.sqrt(frames)]),
    ]
    return any(abs(value - v) <= 1e-6 * v for f in found for v in (f, 1 / f))


def _tells(value: float, frames: int) -> bool:
    """Whether a number may have been computed from that number of frames."""
    near = [frames - 1, frames, frames + 1]
    found = [*near, *(1 / n for n in near), *(a / b for a in near for b in near if a != b)]
    return any(abs(abs(value) - v) <= 1e-6 * v for v in (*found, *(math.sqrt(v) for v in found)))
