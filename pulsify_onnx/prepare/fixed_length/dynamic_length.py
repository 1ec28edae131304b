"""A model of one length made one of any: the dimension that was fixed becomes symbolic again, and every number that
followed it with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import onnx_ir as ir
from onnx_ir.passes import common

from pulsify_onnx.algebra.facts import Running, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.algebra.windows import RateMismatch
from pulsify_onnx.analysis.walker import Walker, read_axes
from pulsify_onnx.errors import Blocker, CannotStream, UsageError
from pulsify_onnx.model.load import Source
from pulsify_onnx.prepare.fixed_length.ends import multiples
from pulsify_onnx.prepare.fixed_length.export import AmbiguousConstant, Export
from pulsify_onnx.prepare.fixed_length.kept import numbers_kept
from pulsify_onnx.prepare.fixed_length.walk import Rereading
from pulsify_onnx.rules.kit.traits import Trait, has
from pulsify_onnx.runtime.sidecar import FixedLength, KeptNumber, ReadAnew

LENGTH_NAME = "length"


class NoReading(CannotStream):
    """A model of one length that cannot stream; `plan` is what is known of it."""

    def __init__(self, blockers: tuple[Blocker, ...], plan: Plan):
        super().__init__(blockers, read_axes(plan))
        self.plan = plan


@dataclass(frozen=True)
class DynamicLength:
    """A model of `frames` base frames as one of any length: stream axes, its plan, and the constants that were read
    anew.

    `ends`: what pads the end by a number that may follow the length, and blocks streams that end. `kept`: numbers that
    were kept, though they may follow the length. `given`: readings by node, as the caller said; `asked`: those that
    there are.
    """

    source: Source
    axes: dict[str, int]
    plan: Plan
    frames: int
    changes: tuple[ReadAnew, ...]
    doubts: tuple[AmbiguousConstant, ...]
    ends: tuple[Blocker, ...] = ()
    kept: tuple[KeptNumber, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, set[str]] = field(default_factory=dict)

    def require_answers(self) -> None:
        """Raises `UsageError` for a reading of what was not asked, or of what has no such reading."""
        for node, said in self.given.items():
            if said not in self.asked.get(node, ()) and not (
                self.plan.blockers and node in {n.name for n in self.source.model.graph} and node not in self.asked
            ):
                options = [
                    f"--reading {shlex.quote(f'{name}={c}')}"
                    for name, choices in self.asked.items()
                    for c in sorted(choices)
                ]
                raise UsageError(
                    f"--reading {node}={said}: nothing asks for it; "
                    + ("there is\n  " + "\n  ".join(options) if options else "no number of this model has two readings")
                )

    def require_ends(self, end: bool) -> None:
        """Raises `CannotStream` where a stream that has an `end`, or a value over all of it, would need what the
        export does not tell.
        """
        whole = (self.plan.facts[name] for name in self.plan.outputs)
        if self.ends and (end or any(isinstance(f, Running) and f.exact for f in whole)):
            raise NoReading(self.ends, self.plan)

    def told(self) -> FixedLength:
        """The ``fixed_length`` of the sidecar."""
        lengths = {
            name: int(f.extent.at(self.frames)) for name in self.axes if isinstance(f := self.plan.facts[name], Stream)
        }
        return FixedLength(
            frames=self.frames, length=lengths, constants=self.changes, kept=self.kept, readings=dict(self.given)
        )


def make_length_dynamic(
    source: Source,
    axes: Mapping[str, int],
    frames: int | None = None,
    options: Options | None = None,
    given: Mapping[str, str] | None = None,
) -> DynamicLength:
    """`source` with symbolic stream axes; what can't be read anew is in ``plan.blockers``.

    `frames`: base frames of the export, where no axis says it. `given`: readings of numbers by node.
    """
    numbers = {name: fixed_size(source, name, axis) for name, axis in axes.items()}
    known = [n for n in numbers.values() if n]
    low = min(known, default=1)
    rates = {name: Fraction(n, low) if n and n % low == 0 else Fraction(1) for name, n in numbers.items()}
    settled: set[frozenset[str]] = set()
    fills: dict[str, int] = {}
    asked: dict[str, set[str]] = {}
    while True:
        slowest = min(rates.values())
        scaled = {name: rate / slowest for name, rate in rates.items()}
        bases = {Fraction(n) / scaled[name] for name, n in numbers.items() if n is not None} or {Fraction(frames or 1)}
        base = bases.pop()
        if bases or base.denominator != 1:
            raise UsageError(
                "the inputs have lengths that do not belong together: "
                + ", ".join(f"{k} {n}" for k, n in numbers.items())
            )
        walker = Walker(_opened(source, axes), axes, scaled, options or Options(), settled)
        export = Export(walker, int(base), given or {}, fills, asked)
        try:
            plan = walker.plan(Rereading(export))
        except RateMismatch as meeting:
            walker.settle_rates(meeting, rates)
            continue
        found = multiples(export)
        if not export.filling.keys() <= fills.keys():
            fills |= export.filling
            continue
        _say_shapes(export.source, plan)
        ends = {b.node: b for b in (*found, *export.ends)}
        return DynamicLength(
            export.source,
            dict(axes),
            plan,
            int(base),
            tuple(export.changes),
            tuple(export.doubts),
            tuple(ends.values()),
            numbers_kept(export),
            given or {},
            asked,
        )


def fixed_size(source: Source, name: str, axis: int) -> int | None:
    """Size of an axis of an input; None where it is dynamic."""
    shape = next(v.shape for v in source.inputs if v.name == name)
    size = None if shape is None else shape[axis]
    return size if isinstance(size, int) else None


def _opened(source: Source, axes: Mapping[str, int]) -> Source:
    """A copy whose stream axes are symbolic and in which no shape is told but those of the inputs."""
    model = source.model.clone()
    for value in model.graph.inputs:
        if value.name and value.name in axes and value.shape is not None:
            value.shape = ir.Shape([LENGTH_NAME if k == axes[value.name] else d for k, d in enumerate(value.shape)])
    _reshaped_once(model)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for out in node.outputs:
            out.shape = None
    return replace(source, model=model)


def _reshaped_once(model: ir.Model) -> None:
    """A reshape of a reshape is one of what went in: the shape between tells nothing, and hides what is only written
    back.
    """
    for node in model.graph:
        before = node.inputs[0].producer() if has(node, Trait.RESHAPES) and node.inputs[0] is not None else None
        shape = node.inputs[1] if before is not None and len(node.inputs) > 1 else None
        known = None if shape is None or shape.const_value is None else shape.const_value.numpy()
        if before is not None and has(before, Trait.RESHAPES) and known is not None and (known != 0).all():
            node.replace_input_with(0, before.inputs[0])
    common.RemoveUnusedNodesPass()(model)


def _say_shapes(source: Source, plan: Plan) -> None:
    """Shapes of the outputs, as they are now."""
    for value in source.model.graph.outputs:
        shape = getattr(plan.facts.get(value.name or ""), "shape", None)
        if shape is not None:
            value.shape = ir.Shape([d.constant if getattr(d, "constant", None) is not None else None for d in shape])
