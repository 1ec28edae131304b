"""Which axis of which input is the stream: told by the user, or the only reading that the analysis gets through
with.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import onnx_ir as ir

from pulsify_onnx.algebra.facts import Blocked, ReceptiveField, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis import growing_caches
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.errors import AmbiguousAxis, Blocker, CannotStream, UsageError, one_line
from pulsify_onnx.model.load import BATCH_NAMES, Source
from pulsify_onnx.rules.kit.traits import Trait, has

TIME_NAMES = ("time", "frame", "seq", "length", "len", "sample", "step", "t", "l")
"""Names that rank readings in a list of them; they decide nothing."""

MOST_SYMBOLS = 8


def choose(source: Source, given: Mapping[str, int | str], options: Options) -> tuple[dict[str, int], Plan]:
    """Stream axis by input name, and the plan of that reading.

    `given` may name an axis by index (negative ones too) or by dim_param. Raises `UsageError` for axes that
    do not exist, `AmbiguousAxis` where several readings are possible. Where none is, the plan's blockers say so.
    """
    fixed = {name: _resolve(source, name, axis) for name, axis in given.items()}
    grown = growing_caches.growing(source)
    readings = list(_readings(source, fixed, {*dict(options.states), *(cache.input for cache in grown)}))
    if grown:
        if not readings:
            raise CannotStream(growing_caches.refused(source, grown))
        return readings[0], replace(
            analyze(source, readings[0], options), blockers=growing_caches.refused(source, grown)
        )
    if not readings:
        raise UsageError(
            "no input has a dynamic dimension, so there is no stream axis to see; "
            "name it with " + " or ".join(_choices(source)[:6])
        )
    if len(readings) == 1:
        return readings[0], analyze(source, readings[0], options)
    tried = [(axes, analyze(source, axes, options)) for axes in readings]
    possible = [(axes, plan) for axes, plan in tried if not plan.blockers]
    maximal = [
        (axes, plan)
        for axes, plan in possible
        if not any(set(axes.items()) < set(other.items()) for other, _ in possible)
    ]
    if len(maximal) == 1:
        axes, plan = maximal[0]
        if not fixed and not any(axes.values()):
            in_doubt(source, axes, plan, [(a, p.blockers) for a, p in tried if p.blockers and any(a.values())])
        return maximal[0]
    if not maximal:
        return min(
            tried,
            key=lambda pair: (
                -len(pair[0]),
                sum(isinstance(f, Blocked) for f in pair[1].facts.values()),
                len(pair[1].blockers),
            ),
        )
    maximal.sort(key=lambda pair: _rank(source, pair[0]))
    lines = [as_options(axes) for axes, _ in maximal]
    raise AmbiguousAxis(
        "the stream axis can be read in more than one way; choose one of\n  " + "\n  ".join(lines), tuple(lines)
    )


def as_options(axes: Mapping[str, int]) -> str:
    """A reading as it is told on the command line."""
    return " ".join(f"--axis {name}={axis}" for name, axis in axes.items())


def in_doubt(
    source: Source, axes: Mapping[str, int], plan: Plan, refused: Sequence[tuple[Mapping[str, int], Sequence[Blocker]]]
) -> None:
    """Raises `AmbiguousAxis` where a model that reads windows or carries a state does neither along the only `axes`
    that are possible, and was `refused` along others: they may be a batch or channels.
    """
    nodes = ir.traversal.RecursiveGraphIterator(source.model.graph)
    if not refused or not frame_by_frame(plan) or not any(has(n, Trait.WINDOWS, Trait.RECURRENT) for n in nodes):
        return
    lines = [as_options(axes), *(as_options(others) for others, _ in refused)]
    why = [
        one_line(f'{option}: {b[0].op_type} "{b[0].node}": {b[0].reason}') for option, (_, b) in zip(lines[1:], refused)
    ]
    raise AmbiguousAxis(
        f"the stream axis is not plain: with {lines[0]} the model streams, but frame by frame, without states or "
        "lookahead, so that may be a batch or channels; it is refused with\n  "
        + "\n  ".join(why)
        + "\nsay which axis is time, with one of\n  "
        + "\n  ".join(lines),
        tuple(lines),
    )


def frame_by_frame(plan: Plan) -> bool:
    """Whether each frame of every output follows from the same frame of the inputs, and nothing is carried."""
    facts = [plan.facts[name] for name in plan.outputs]
    here = ReceptiveField()
    return all(isinstance(f, Stream) and f.rate == 1 and f.reach == here for f in facts) and not any(
        step.states for step in plan.steps
    )


def _input(source: Source, name: str) -> ir.Value:
    for value in source.inputs:
        if value.name == name:
            return value
    raise UsageError(
        f"--axis {name}: the model has no such input; it has {', '.join(v.name or '' for v in source.inputs)}"
    )


def index_of(source: Source, name: str, axis: int | str) -> int:
    """The axis that the user means, as a non-negative index. Raises `UsageError`."""
    value = _input(source, name)
    if value.shape is None:
        raise UsageError(f"--axis {name}: the input has no shape")
    rank = len(value.shape)
    if isinstance(axis, str):
        labels = [d.value if not isinstance(d, int) else None for d in value.shape]
        if axis in labels:
            return labels.index(axis)
        try:
            axis = int(axis)
        except ValueError:
            known = ", ".join(str(x) for x in labels if x) or "none"
            raise UsageError(f"--axis {name}={axis}: no dimension of that name (named dimensions: {known})") from None
    if not -rank <= axis < rank:
        raise UsageError(f"--axis {name}={axis}: the input has {rank} dimensions")
    return axis % rank


def _resolve(source: Source, name: str, axis: int | str) -> int:
    value, index = _input(source, name), index_of(source, name, axis)
    if value.shape is not None and isinstance(value.shape[index], int):
        raise CannotStream(
            (
                Blocker(
                    name,
                    "input",
                    f"its dimension {index} is fixed to {value.shape[index]} frames",
                    "export the model with this dimension dynamic",
                ),
            )
        )
    return index


def _symbols(source: Source, without: Container[str]) -> dict[str, list[tuple[str, int]]]:
    """(input, axis) pairs by symbol; a dimension without a name is a symbol of its own.

    The batch of an input that has more dimensions of any size is that of inputs which have no other one, too.
    """
    places, batch = [], set()
    for value in source.inputs:
        shape = (value.shape or ()) if value.name not in without else ()
        moving = [(k, d.value) for k, d in enumerate(shape) if not isinstance(d, int)]
        places += [(value.name or "", k, label) for k, label in moving]
        if len(moving) > 1 and moving[0][0] == 0 and (moving[0][1] or "").lower().replace("-", "_") in BATCH_NAMES:
            batch.add(moving[0][1])
    found: dict[str, list[tuple[str, int]]] = {}
    for name, k, label in places:
        if k or label not in batch:
            found.setdefault(label or f"{name}.{k}", []).append((name, k))
    return found


def _readings(source: Source, fixed: Mapping[str, int], without: Container[str]) -> Iterator[dict[str, int]]:
    """Every way to say which symbols are time; an input has one stream axis at most, those `without` have none."""
    symbols = _symbols(source, without)
    told = {label for label, places in symbols.items() if any(fixed.get(n) == k for n, k in places)}
    seen: list[dict[str, int]] = []
    names = list(symbols)[:MOST_SYMBOLS]
    for size in range(len(names), -1, -1):
        for subset in combinations(names, size):
            if not told <= set(subset):
                continue
            axes: dict[str, int] = dict(fixed)
            clash = False
            for label in subset:
                for name, k in _single(symbols[label]):
                    clash |= axes.get(name, k) != k
                    axes[name] = k
            if axes and not clash and axes not in seen:
                seen.append(axes)
    largest = [a for a in seen if not any(set(a.items()) < set(b.items()) for b in seen)]
    rest = [a for a in seen if a not in largest]
    order = [v.name or "" for v in source.inputs]
    for axes in [*largest, *rest] if len(symbols) > 1 else largest:
        yield {n: axes[n] for n in order if n in axes}


def _single(places: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Places of a symbol without inputs that have it on two axes (a mask of query × key): those have no stream axis."""
    names = [name for name, _ in places]
    return [(name, k) for name, k in places if names.count(name) == 1]


def _rank(source: Source, axes: Mapping[str, int]) -> int:
    score = 0
    for name, axis in axes.items():
        dim = (_input(source, name).shape or ())[axis]
        label = ("" if isinstance(dim, int) else dim.value or "").lower()
        score += next((k for k, word in enumerate(TIME_NAMES) if word in label), len(TIME_NAMES))
    return score


def _choices(source: Source) -> list[str]:
    return [f"--axis {v.name}={k}" for v in source.inputs for k in range(len(v.shape or ()))] or ["--axis INPUT=AXIS"]
