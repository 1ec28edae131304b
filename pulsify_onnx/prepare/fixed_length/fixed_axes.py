"""Which dimensions of a fixed size are the length of the export, and the only length at which a model runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product

from pulsify_onnx.algebra.facts import Blocked, Static, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis.axis import as_options, choose, in_doubt, index_of
from pulsify_onnx.errors import AmbiguousAxis
from pulsify_onnx.model.load import BATCH_NAMES, Source
from pulsify_onnx.prepare.fixed_length.dynamic_length import DynamicLength, NoReading, fixed_size, make_length_dynamic
from pulsify_onnx.prepare.fixed_length.trial_runs import TrialRuns, checked
from pulsify_onnx.rules.kit.traits import Trait, has

MOST_READINGS = 64


def settle(
    source: Source, given: Mapping[str, int | str], options: Options, said: Mapping[str, str] | None = None
) -> DynamicLength | None:
    """The model with its fixed length made symbolic, where `given` or the lack of dynamic dimensions asks for it; else
    None.

    `said`: readings of numbers by node. Raises `UsageError`, `AmbiguousAxis` where several readings are possible,
    `CannotStream` where none is.
    """
    told = {name: index_of(source, name, axis) for name, axis in given.items()}
    if all(fixed_size(source, name, axis) is None for name, axis in told.items()) and (told or dynamic(source)):
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
    lines = [as_options(r.axes) for r in maximal]
    if possible and not told and any(0 < len(v.shape or ()) < 3 for v in source.inputs):
        lines += _batch_reading(source)  # [N, 64] may be N frames; in [N, 900, 64] there are other axes for them
    if len(lines) > 1:
        raise AmbiguousAxis(
            "the model has a fixed length, and it can be read in more than one way which axis it is; choose one of\n  "
            + "\n  ".join(lines),
            tuple(lines),
        )
    refused = [(r.axes, r.plan.blockers) for r in tried if r.plan.blockers and any(r.axes.values())]
    if maximal:
        if possible and not told:
            in_doubt(source, maximal[0].axes, maximal[0].plan, refused)
        return maximal[0]
    if not told and _batch_reading(source):
        in_doubt(source, *choose(source, {}, Options()), refused)
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
    return [] if plan.blockers else [as_options(axes)]


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
        more = {fixed_size(source, name, axis) for name, axis in reading.items() if name not in told}
        if not reading or len(more) > 1 or (told and not more <= {fixed_size(source, n, a) for n, a in told.items()}):
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
        runs = TrialRuns(source, found)
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
