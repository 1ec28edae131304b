"""A pass makes a batch model of a batch model, before the analysis that counts: its fields are its options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from pulsify_onnx.algebra.facts import Stream
from pulsify_onnx.algebra.plan import Plan
from pulsify_onnx.model.load import Source
from pulsify_onnx.runtime.sidecar import FixedLength, LeftContext


@dataclass(frozen=True)
class Notes:
    """What passes have to say, as the sidecar has it."""

    fixed_length: FixedLength | None = None
    approximation: LeftContext | None = None


@dataclass(frozen=True)
class Head:
    """What was cut off a model of clips of `frames` base frames: it needs one whole window and stays as it was
    exported.

    ``source`` has inputs named ``window_of(wire)``, of as many frames as in a clip, for the streams of the body that it
    reads. ``windows``: these streams. ``outputs``: those of the whole model.
    """

    source: Source
    windows: Mapping[str, Stream]
    outputs: tuple[str, ...]
    frames: int


def window_of(wire: str) -> str:
    """The name that a head has for a window of stream `wire`."""
    return f"{wire}#window"


@dataclass(frozen=True)
class Prepared:
    """A batch model on its way to the analysis.

    ``axes``: the stream axes that are known. ``notes``: what the sidecar says of the passes. ``read``: all stream axes
    and the plan of the model as it is now, where a pass had to find them. ``head``: what was cut off it.
    """

    source: Source
    axes: Mapping[str, int | str] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    read: tuple[dict[str, int], Plan] | None = None
    head: Head | None = None


@dataclass(frozen=True)
class Contract:
    """What holds of a model; `broken` says how it does not, or nothing."""

    name: str
    broken: Callable[[Prepared], str]


def _names(model: Prepared) -> str:
    graph = model.source.model.graph
    values = Counter(
        v.name
        for v in (*graph.inputs, *(out for node in graph for out in node.outputs))
        if v.name or v.uses() or v.is_graph_output()
    )
    wrong = [f"{count} values are named {name!r}" for name, count in values.items() if count > 1 or not name]
    return ", ".join([*wrong, *(f"a {node.op_type} has no name" for node in graph if not node.name)])


def _order(model: Prepared) -> str:
    graph = model.source.model.graph
    known = {v.name for v in graph.inputs} | set(graph.initializers)
    for node in graph:
        missing = [v.name for v in node.inputs if v is not None and v.name not in known]
        if missing:
            return f"{node.name} reads {', '.join(map(str, missing))}, which nothing before it computes"
        known.update(out.name for out in node.outputs)
    return ""


def _lengths(model: Prepared) -> str:
    shapes = {v.name: v.shape for v in model.source.inputs if v.shape is not None}
    fixed = [
        name
        for name, axis in model.axes.items()
        if isinstance(axis, int) and name in shapes and isinstance(shapes[name][axis], int)
    ]
    return ", ".join(fixed)


def _read(model: Prepared) -> str:
    return "" if model.read is not None else "it is not"


def _head(model: Prepared) -> str:
    if model.head is None:
        return "there is none"
    given = {v.name for v in model.head.source.inputs}
    outputs = {v.name for v in model.source.model.graph.outputs}
    inputs = {v.name for v in model.source.inputs}
    return ", ".join(
        wire for wire in model.head.windows if window_of(wire) not in given or wire not in outputs | inputs
    )


NAMED = Contract("every node has a name, and every value one of its own", _names)
ORDERED = Contract("every value is computed before it is read", _order)
ANY_LENGTH = Contract("the stream axes that are known are of any length", _lengths)
READ = Contract("it is known how the model is read", _read)
HEAD = Contract("a head reads windows of streams that the body gives", _head)


class Pass(Protocol):
    """What `run` runs. `requires` holds before, `ensures` after."""

    requires: ClassVar[tuple[Contract, ...]]
    ensures: ClassVar[tuple[Contract, ...]]

    def __call__(self, model: Prepared) -> Prepared:
        """Another model, on a graph of its own; or the same."""


def run_passes(model: Prepared, *passes: Pass) -> Prepared:
    """The model after all passes. Raises `AssertionError` where one of them breaks its contract, or is called where
    it may not be.
    """
    for each in passes:
        _check(each, "requires", each.requires, model)
        made = each(model)
        if made is not model:
            _check(each, "ensures", each.ensures, made)
        model = made
    return model


def _check(each: Pass, what: str, contracts: tuple[Contract, ...], model: Prepared) -> None:
    for contract in contracts:
        if problem := contract.broken(model):
            raise AssertionError(f"{type(each).__name__} {what} that {contract.name}: {problem}")
