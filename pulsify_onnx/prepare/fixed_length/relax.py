"""Exports of one length: the dimension that was fixed becomes symbolic again, and every number that followed it with
it.

The result is a batch model for any length. It is run beside the original at the original length, where both must give
the
same, and at two others, where it must run; a number that could be read otherwise and runs there too is refused.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, product

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common

from pulsify_onnx.algebra.facts import Blocked, Running, Static, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.algebra.windows import RateMismatch
from pulsify_onnx.analysis.axis import choose, index_of
from pulsify_onnx.analysis.walker import Walker
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import AmbiguousAxis, Blocker, CannotStream, UsageError
from pulsify_onnx.model.load import BATCH_NAMES, Source
from pulsify_onnx.model.precision import TOLERANCES
from pulsify_onnx.ort import ALL_OUTPUTS, session
from pulsify_onnx.output import write
from pulsify_onnx.prepare.fixed_length.ends import multiples
from pulsify_onnx.prepare.fixed_length.export import AmbiguousConstant, Export, offered
from pulsify_onnx.prepare.fixed_length.kept import numbers_kept
from pulsify_onnx.prepare.fixed_length.walk import Rereading
from pulsify_onnx.rules.kit.traits import Trait, has
from pulsify_onnx.runtime.sidecar import FixedLength, KeptNumber, ReadAnew

MOST_READINGS = 64
LENGTH_NAME = "length"


class NoReading(CannotStream):
    """A model of one length that cannot stream; `plan` is what is known of it."""

    def __init__(self, blockers: tuple[Blocker, ...], plan: Plan):
        super().__init__(blockers)
        self.plan = plan


@dataclass(frozen=True)
class DynamicLength:
    """A model of `frames` base frames as one of any length: stream axes, its plan, and the constants that were read
    anew.

    `ends`: what pads the end by a number that may follow the length, and blocks streams that end. `kept`: numbers that
    were kept,
    though they may follow the length. `given`: readings by node, as the caller said; `asked`: those that there are.
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
    numbers = {name: _dim(source, name, axis) for name, axis in axes.items()}
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


def _dim(source: Source, name: str, axis: int) -> int | None:
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


def settle(
    source: Source, given: Mapping[str, int | str], options: Options, said: Mapping[str, str] | None = None
) -> DynamicLength | None:
    """The model with its fixed length made symbolic, where `given` or the lack of dynamic dimensions asks for it; else
    None.

    `said`: readings of numbers by node. Raises `UsageError`, `AmbiguousAxis` where several readings are possible,
    `CannotStream` where none is.
    """
    told = {name: index_of(source, name, axis) for name, axis in given.items()}
    if all(_dim(source, name, axis) is None for name, axis in told.items()) and (told or dynamic(source)):
        return None
    possibly = list(readings(source, told, {name for name, _ in options.states}))
    if not possibly:
        return None
    tried = [checked(source, make_length_dynamic(source, axes, None, options, said)) for axes in possibly]
    possible = [r for r in tried if not r.plan.blockers]
    asking = [r for r in tried if r.plan.blockers and all(b.node in r.asked for b in r.plan.blockers)]
    maximal = [
        r
        for r in [*possible, *(asking if possible else [])]
        if not any(set(r.axes.items()) < set(other.axes.items()) for other in [*possible, *asking])
    ]
    lines = [" ".join(f"--axis {name}={axis}" for name, axis in r.axes.items()) for r in maximal]
    if possible and not told and any(0 < len(v.shape or ()) < 3 for v in source.inputs):
        lines += _batch_reading(source)  # [N, 64] may be N frames; in [N, 900, 64] there are other axes for them
    if len(lines) > 1:
        raise AmbiguousAxis(
            "the model has a fixed length, and it can be read in more than one way which axis it is; choose one of\n  "
            + "\n  ".join(lines),
            tuple(lines),
        )
    if maximal:
        return maximal[0]
    if not told and _batch_reading(source):
        return None
    nearest = min(tried, key=_blocked)
    nearest.require_answers()
    raise NoReading(nearest.plan.blockers, nearest.plan)


def _blocked(found: DynamicLength) -> tuple[int, int]:
    return sum(isinstance(f, Blocked) for f in found.plan.facts.values()), len(found.plan.blockers)


def dynamic(source: Source) -> list[tuple[str, int]]:
    """Inputs and their dynamic dimensions that are no batch by their name."""
    return [
        (v.name or "", k)
        for v in source.inputs
        for k, d in enumerate(v.shape or ())
        if not isinstance(d, int) and not _batch(k, d.value)
    ]


def _batch(axis: int, label: str | None) -> bool:
    return axis == 0 and label is not None and label.lower().replace("-", "_") in BATCH_NAMES


def _batch_reading(source: Source) -> list[str]:
    """The reading that streams along the batch, where it is dynamic and the model lets it."""
    if all(isinstance(d, int) for v in source.inputs for d in v.shape or ()):
        return []
    axes, plan = choose(source, {}, Options())
    return [] if plan.blockers else [" ".join(f"--axis {name}={axis}" for name, axis in axes.items())]


def readings(source: Source, told: Mapping[str, int], states: set[str]) -> Iterator[dict[str, int]]:
    """Ways to say which fixed dimensions are time: of several inputs, those with the same number belong together."""
    names = [v.name or "" for v in source.inputs]
    choices: list[list[int | None]] = []
    for value in source.inputs:
        free = [k for k, d in enumerate(value.shape or ()) if isinstance(d, int) and d > 1]
        choices.append(
            [told[value.name]]
            if value.name and value.name in told
            else [None]
            if value.name in states
            else [None, *free]
        )
    found = 0
    for axes in product(*choices):
        reading = {name: axis for name, axis in zip(names, axes) if axis is not None}
        more = {_dim(source, name, axis) for name, axis in reading.items() if name not in told}
        if not reading or len(more) > 1 or (told and not more <= {_dim(source, n, a) for n, a in told.items()}):
            continue
        yield reading
        found += 1
        if found == MOST_READINGS:
            return


def implied(
    source: Source, axes: Mapping[str, int], plan: Plan, said: Mapping[str, str] | None = None
) -> DynamicLength | None:
    """A model with a dynamic axis that runs at one length only, since numbers in it were fixed all the same; None for
    any other.

    `plan`: why it does not stream as it is.
    """
    for frames in _lengths_told(source, plan):
        found = make_length_dynamic(source, axes, frames, None, said)
        if found.plan.blockers or not found.changes:
            continue
        runs = _Runs(source, found)
        if runs.original(frames) is None or any(
            runs.original(n) is not None for n in (frames + 1, frames + found.plan.pulse_multiple, 2 * frames)
        ):
            continue
        found = checked(source, found)
        if not found.plan.blockers:
            return found
    return None


def _lengths_told(source: Source, plan: Plan) -> list[int]:
    """Base frames for which the number that blocks a reshape or a sum is right."""
    blocked = {b.node for b in plan.blockers}
    wanted: list[int] = []
    for node in source.model.graph:
        stream = next(
            (
                plan.facts.get(v.name or "")
                for v in node.inputs
                if v is not None and isinstance(plan.facts.get(v.name or ""), Stream)
            ),
            None,
        )
        if node.name not in blocked or not isinstance(stream, Stream):
            continue
        rest = math.prod(d.constant or 1 for k, d in enumerate(stream.shape) if k != stream.axis)
        for value in node.inputs:
            fact = None if value is None else plan.facts.get(value.name or "")
            if not isinstance(fact, Static):
                continue
            array = fact.value.array if fact.value is not None else source.constant(fact.wire)
            if array is None:
                continue
            if has(node, Trait.RESHAPES) and value is node.inputs[1] and (array > 0).all():
                sizes = [math.prod(array.tolist()) // rest]
            else:
                sizes = [n for n in array.shape if n > 1]
            for n in sizes:
                wanted += [t for t in _solved(stream, n) if t > 1 and t not in wanted]  # a 1 is a batch, no recording
    return wanted[:4]


def _solved(stream: Stream, frames: int) -> list[int]:
    """Base frames for which `stream` has so many."""
    low, high = 1, 1 << 24
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if stream.extent.at(middle) >= frames else (middle + 1, high)
    return [low] if stream.extent.at(low) == frames else []


class _Runs:
    """Runs a model of a fixed length, and its reading for any length, on the same random data."""

    def __init__(self, source: Source, relaxed: DynamicLength):
        self.inputs, self.relaxed = source.inputs, relaxed
        self.batch = _session(source.model)
        self.error = ""

    def arrays(self, frames: int, rows: int) -> dict[str, Array]:
        rng = np.random.default_rng([3, frames])
        made = {}
        for value in self.inputs:
            fact = self.relaxed.plan.facts[value.name or ""]
            shape = [d if isinstance(d, int) else rows for d in value.shape or ()]
            if isinstance(fact, Stream):
                shape[fact.axis] = fact.extent.at(frames)
            dtype = (value.dtype or ir.DataType.FLOAT).numpy()
            made[value.name or ""] = (
                rng.standard_normal(shape).astype(dtype)
                if dtype.kind not in "iub"
                else rng.integers(0, 2, shape).astype(dtype)
            )
        return made

    def original(self, frames: int, rows: int = 1) -> list[Array] | None:
        """Outputs of the original, None where it does not run."""
        return self.run(self.batch, frames, rows)

    def run(self, runner: ort.InferenceSession, frames: int, rows: int = 1) -> list[Array] | None:
        """Outputs at a length, None where it does not run there."""
        try:
            return [np.asarray(x) for x in runner.run(None, self.arrays(frames, rows))]
        except Exception as problem:
            self.error = " ".join(str(problem).split())[:200]
            return None


def runnable(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, with a name for every output that onnxruntime wants one for."""
    proto = ir.to_proto(write.with_weights(model))
    for written, node in zip(proto.graph.node, model.graph):
        if node.op_type in ALL_OUTPUTS:
            written.output.extend([""] * (len(node.outputs) - len(written.output)))
            for k, name in enumerate(written.output):
                written.output[k] = name or f"{node.name}/unread_{k}"
    return proto


def _session(model: ir.Model) -> ort.InferenceSession:
    return session(runnable(model).SerializeToString(), severity=4, plain=True)


def checked(source: Source, found: DynamicLength) -> DynamicLength:
    """`found`, with a blocker where it is not the original at the original length, or not the only reading at
    others.
    """
    if found.plan.blockers or not found.changes:
        return found
    problem = _problem(source, found)
    return found if problem is None else replace(found, plan=replace(found.plan, blockers=(problem,)))


def _problem(source: Source, found: DynamicLength) -> Blocker | None:
    runs = _Runs(source, found)
    name = ", ".join(found.axes)
    anew = _session(found.source.model)
    rows = next((n for n in (2, 1) if runs.original(found.frames, n) is not None), 1)
    want, got = runs.original(found.frames, rows), runs.run(anew, found.frames, rows)
    if want is None or got is None:
        return Blocker(
            name,
            "input",
            f"the model does not run at its own length of {found.frames} frames ({runs.error})",
            "check that the model runs",
        )
    if not all(_same(a, b) for a, b in zip(want, got)):
        return Blocker(
            name,
            "input",
            f"with a dynamic length the model gives something else at {found.frames} frames",
            "export the model with a dynamic length",
        )
    lengths = list(islice((n for n in _others(found) if _fits(found, runs.run(anew, n, rows), n)), 2))
    if len(lengths) < 2:
        return Blocker(
            name,
            "input",
            f"with the numbers that follow the length read anew, it still runs at {found.frames} frames only "
            f"({runs.error})",
            "export the model with a dynamic length",
        )
    for doubt in found.doubts:
        second = _session(doubt.model(found.source.model))
        if any(runs.run(second, n, rows) is not None for n in (2 * found.frames, *lengths)):
            return Blocker(
                doubt.node,
                doubt.op_type,
                f"its constant {doubt.constant!r} can be read in two ways for other lengths than {found.frames}: "
                f"as {doubt.told}",
                offered("export the model with a dynamic length", doubt.node, doubt.choices),
            )
    return None


def _others(found: DynamicLength) -> Iterator[int]:
    """Lengths to try beside the original one: near ones first, then those that have its divisors."""
    step = found.plan.pulse_multiple
    start = math.ceil(found.frames / step) * step
    yield from (start + step, start + 2 * step, 2 * found.frames, 3 * found.frames, found.frames + 7 * step)


def _fits(found: DynamicLength, outputs: list[Array] | None, frames: int) -> bool:
    """Whether the model ran, and its outputs have the lengths that the analysis says."""
    if outputs is None:
        return False
    facts = [found.plan.facts[name] for name in found.plan.outputs]
    return all(not isinstance(f, Stream) or x.shape[f.axis] == f.extent.at(frames) for f, x in zip(facts, outputs))


def _same(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "iub":
        return bool((a == b).all())
    x, y = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0))
    return np.allclose(x, y, rtol=0, atol=TOLERANCES.get(str(a.dtype), 2e-4) * max(1e-3, scale) / 10, equal_nan=True)
