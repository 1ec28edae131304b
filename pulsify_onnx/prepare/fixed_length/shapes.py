"""Shapes, ends, sizes and scales that follow the length."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import QueryKey, Shape, Stream
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.errors import Blocker, Refusal, refuse
from pulsify_onnx.prepare.fixed_length.export import ENDING, EXPORT, FILL, SHARE, AmbiguousConstant, offered
from pulsify_onnx.prepare.fixed_length.regroup import regrouped
from pulsify_onnx.prepare.fixed_length.rewriting import Rewriting
from pulsify_onnx.rules.kit.infer import shape_of
from pulsify_onnx.rules.kit.views import BEYOND_ANY_SIZE, by_attribute, scales_at
from pulsify_onnx.rules.reshape import resolve
from pulsify_onnx.runtime.sidecar import ReadAnew

END = 2**63 - 1
LEAST = 4
"""In fewer frames than this, every number would be a half of them, and below twice this a third or a quarter."""


class Shapes(Rewriting):
    """A node that takes a shape, a bound or sizes."""

    def reshape(self) -> None:
        """Write the target shape with 0, -1 and computed lengths."""
        fact, numbers = self.node.facts[0], self.numbers(1) if len(self.node.facts) > 1 else None
        if (
            numbers is None
            or not isinstance(fact, (Stream, QueryKey))
            or (fact.shape and any(self.export.at(d) < 1 for d in fact.shape))
        ):
            return
        export, allowzero = self.export, bool(self.node.attr("allowzero", 0))
        shape = list(fact.shape)
        if isinstance(fact, Stream) and fact.merged:
            slower, faster = fact.around
            shape[fact.axis : fact.axis + 1] = [slower, fact.extent, faster]
        elif (
            isinstance(fact, Stream)
            and (inner := math.gcd(*(int(c) for _, c in fact.extent.terms))) > 1
            and fact.extent.divisors() <= {1}
        ):
            shape[fact.axis : fact.axis + 1] = [fact.extent.floordiv(inner), Length.of(inner)]
        whole = shape_of(fact)
        sizes = [export.at(d) for d in whole]
        wanted = [sizes[k] if n == 0 and not allowzero and k < len(sizes) else n for k, n in enumerate(numbers)]
        rest = math.prod(n for n in wanted if n != -1)
        if -1 in wanted and rest and math.prod(sizes) % rest == 0:
            wanted[wanted.index(-1)] = math.prod(sizes) // rest
        if math.prod(wanted) != math.prod(sizes):
            self.refuse(1, f"is a shape {numbers} for another number of frames than {export.frames}")
        target, doubtful = regrouped(shape, [export.at(d) for d in shape], wanted)
        if target == _as_written(whole, numbers, allowzero):
            return
        written = [
            d.constant if d.constant is not None else 0 if k < len(whole) and whole[k] == d else -1
            for k, d in enumerate(target)
        ]
        if allowzero:
            self.raw.attributes.pop("allowzero")
        if written.count(-1) <= 1:
            others = (
                [numbers] if -1 in numbers and not allowzero else []
            )  # as it is written it may fit other lengths too
            for first, *more in doubtful:
                if written[first] == -1:
                    others += [
                        [-1 if j == k else wanted[j] if j == first else n for j, n in enumerate(written)] for k in more
                    ]
            self.integers(1, written, others)
            return
        if isinstance(fact, QueryKey):
            self.refuse(1, f"is a shape {numbers} in which two dimensions follow the length")
        assert isinstance(fact, Stream) and self.raw.inputs[0] is not None
        parts = []
        for k, d in enumerate(target):
            if d.moves:
                own = Fraction(wanted[k], export.at(fact.extent))
                parts.append(self.length(self.raw.inputs[0], fact.axis, own))
            else:
                parts.append(self.value(np.asarray([numbers[k] if d.constant is None else d.constant], np.int64)))
        self.put(1, self.op("Concat", *parts, axis=0), f"[{', '.join(map(str, target))}]")

    def expand(self) -> None:
        """A stream keeps its own length."""
        fact, numbers = self.node.facts[0], self.numbers(1)
        if numbers is None or not isinstance(fact, (Stream, QueryKey)):
            return
        axes = {a - len(fact.shape) for a in ((fact.axis,) if isinstance(fact, Stream) else fact.axes)}
        self.integers(1, [1 if k - len(numbers) in axes else n for k, n in enumerate(numbers)])

    def slice(self) -> None:
        """Ends that lie near the end of the export are counted from there."""
        fact = self.node.facts[0]
        if not isinstance(fact, Stream):
            return
        if by_attribute(self.node, "starts"):
            self._slice_attributes(fact)
            return
        starts, ends = self.numbers(1), self.numbers(2)
        if starts is None or ends is None:
            return
        axes: list[int] | None = self.numbers(3) if self.node.fact(3) is not None else [*range(len(starts))]
        steps: list[int] | None = self.numbers(4) if self.node.fact(4) is not None else [1] * len(starts)
        if axes is None or steps is None:
            return
        k = next((k for k, a in enumerate(axes) if a % fact.rank == fact.axis and steps[k] > 0), None)
        if k is None:
            return
        n = self.export.at(fact.extent)
        start, end, lengths = starts[k], ends[k], self._lengths()
        natural = end > 0 and end - max(start, 0) == fact.rate * self.export.frames
        for at, bound in ((1, start), (2, end)):
            if not natural and (
                (_share(abs(bound), n) and bound not in lengths) or (at == 1 and 0 < bound < n and bound in lengths)
            ):
                self.ask(at, f"cuts at {bound} of {n} frames, which may be a number or a share of them")
        if n - start < start <= n:
            self.integers(1, _swapped(starts, k, start - n), [starts] if start < n else [])
        elif -n <= start < 0 and (-start in lengths or n + start < -start):
            self.integers(1, _swapped(starts, k, n + start), [starts] if -start not in lengths and start > -n else [])
        if end in lengths and lengths[end][2] != fact.extent:
            name, axis, _ = lengths[end]
            if end == n and self.export.said(self.node.name, (FILL,)) is None:
                self.export.ends.append(
                    Blocker(
                        self.node.name,
                        self.node.op_type,
                        f"its constant {self.constant(2)!r} cuts nothing off {n} frames, but may "
                        "of another number: padding that was computed for it",
                        offered(ENDING, self.node.name, (FILL,)),
                    )
                )
            value = next(v for v in self.export.source.inputs if v.name == name)
            parts = [
                self.length(value, axis, Fraction(1)) if j == k else self.value(np.asarray([e], np.int64))
                for j, e in enumerate(ends)
            ]
            self.put(2, self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0], f"the length of {name}")
        elif n <= end <= BEYOND_ANY_SIZE:
            self.integers(2, _swapped(ends, k, END))
        elif 0 < end < n and n - end < end and end - start > 1:
            self.integers(2, _swapped(ends, k, end - n), [] if natural else [ends])
        elif -n < end < 0 and n + end < -end:
            self.ask(2, f"ends {-end} frames before the end of {n}, which may be {n + end} frames after the start")

    def _slice_attributes(self, fact: Stream) -> None:
        starts, ends = self.node.ints("starts") or [], self.node.ints("ends") or []
        n = self.export.at(fact.extent)
        for k, a in enumerate(self.node.ints("axes") or range(len(starts))):
            if a % fact.rank == fact.axis and n <= ends[k] <= BEYOND_ANY_SIZE:
                self.raw.attributes["ends"] = ir.AttrInt64s("ends", _swapped(ends, k, END))
                self.export.changes.append(
                    ReadAnew(node=self.node.name, constant="ends", was=str(ends), now=str(_swapped(ends, k, END)))
                )
            elif a % fact.rank == fact.axis and n - ends[k] < ends[k] < n:
                refuse(f"its end {ends[k]} of {n} frames can be counted from the start or from the end", hint=EXPORT)

    def _lengths(self) -> dict[int, tuple[str, int, Length]]:
        """Inputs by their lengths at the export: name, axis, extent."""
        facts = [(name, self.export.facts[name]) for name in self.export.walk.axes]
        return {self.export.at(f.extent): (name, f.axis, f.extent) for name, f in facts if isinstance(f, Stream)}

    def resize(self) -> None:
        """Fixed sizes become scales, where the stream grows or shrinks by a whole factor."""
        fact, (_, index) = self.node.facts[0], scales_at(self.node)
        if index is None or not isinstance(fact, Stream):
            return
        sizes = self.numbers(index) if self.node.fact(index) is not None else None
        if sizes is None:
            return
        n, own = self.export.at(fact.extent), [self.export.at(d) for d in fact.shape]
        axes = self.node.ints("axes") or list(range(fact.rank))
        at = next((k for k, a in enumerate(axes) if a % fact.rank == fact.axis), None)
        if at is None:
            return
        if sizes[at] % n and n % sizes[at]:
            self.refuse(index, f"makes {sizes[at]} frames of {n}, which is no whole factor", hint="resize by a scale")
        scales = np.asarray([size / own[a] for size, a in zip(sizes, axes)], np.float32)
        was = tuple(None if v is None else v.name for v in self.raw.inputs)
        self.put(index, self.value(scales), f"scales {scales.tolist()}")
        told = f"{sizes[at]} of {n} frames, a share of them, or as {sizes[at]} whatever their number"
        if self.export.said(self.node.name, (SHARE,)) is None:
            self.export.doubts.append(
                AmbiguousConstant(
                    self.node.name, self.node.op_type, self.constant(index), told, inputs=was, choices=(SHARE,)
                )
            )
        self.raw.replace_input_with(2, self.raw.inputs[index])
        self.raw.replace_input_with(index, None)
        self.raw.resize_inputs(3)

    def pad(self) -> None:
        """Padding that was said to fill up to a multiple of frames is computed."""
        fact, multiple = self.node.facts[0], self.export.fills.get(self.node.name)
        pads = self.numbers(1) if len(self.node.facts) > 1 else None
        if multiple is None or pads is None or not isinstance(fact, Stream) or self.raw.inputs[0] is None:
            return
        more = pads[fact.rank + fact.axis] - -self.export.at(fact.extent) % multiple
        lack = self.op(
            "Mod",
            self.op("Neg", self.length(self.raw.inputs[0], fact.axis, Fraction(1))),
            self.value(np.asarray([multiple], np.int64)),
        )
        after = self.op("Add", lack, self.value(np.asarray([more], np.int64))) if more else lack
        at = fact.rank + fact.axis
        parts = [after if j == at else self.value(np.asarray([n], np.int64)) for j, n in enumerate(pads)]
        self.put(1, self.op("Concat", *parts, axis=0), f"{more} and what makes a multiple of {multiple}")

    def split(self) -> None:
        """The last part takes what the others leave."""
        fact, sizes = self.node.facts[0], self.numbers(1) if self.node.fact(1) is not None else None
        if sizes is None or not isinstance(fact, Stream) or self.node.axis(fact.rank, default=0) != fact.axis:
            return
        assert self.raw.inputs[0] is not None
        if len(sizes) > 1 and len(set(sizes)) == 1:
            self.refuse(
                1,
                f"cuts the stream into {len(sizes)} equal parts {sizes}, so that each depends on its length",
                hint="cut a fixed number of frames",
            )
        if 2 * sizes[-1] <= sum(sizes):
            self.refuse(
                1,
                f"cuts {sum(sizes)} frames into parts of {sizes}, and nothing says which of them grows with the stream",
            )
        last = self.length(self.raw.inputs[0], fact.axis, Fraction(1), -sum(sizes[:-1]))
        whole = (
            self.op("Concat", self.value(np.asarray(sizes[:-1], np.int64)), last, axis=0) if len(sizes) > 1 else last
        )
        self.put(1, whole, f"{sizes[:-1]} and the rest")


def _share(bound: int, frames: int) -> bool:
    """Whether a bound may have been computed as a half, a third or a quarter of the frames."""
    if frames >= LEAST and bound in (frames // 2, -(-frames // 2)):
        return True
    return bound >= 2 * LEAST and any(bound * q == frames * p for q in (3, 4) for p in range(1, q))


def _swapped(values: list[int], at: int, value: int) -> list[int]:
    return [value if k == at else v for k, v in enumerate(values)]


def _as_written(shape: Shape, numbers: list[int], allowzero: bool) -> list[Length] | None:
    """What a target shape means for a tensor of another length too; None where it fits one length only."""
    try:
        return resolve(shape, [Length.of(n) for n in numbers], allowzero)
    except Refusal:
        return None
