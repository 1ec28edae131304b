"""The streaming vocabulary: what rules say, and all that lowering can do.

An `Expr` describes a tensor of one pulse. A `Step` computes the wires of one node (or of a help step) and
declares its states. A `Plan` is the whole pulsed graph before it is one. All of it is frozen, comparable
data; wires are named, so expressions stay shallow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Union

import onnx_ir as ir

from pulsify_onnx.algebra.attributes import Attribute
from pulsify_onnx.algebra.delay import Delay, DelayLike, Timing
from pulsify_onnx.algebra.facts import Fact, Padding, Shape
from pulsify_onnx.algebra.hidden import Mask, TimedMask
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.arrays import Const
from pulsify_onnx.errors import Blocker


@dataclass(frozen=True)
class Frames:
    """``rate * pulse + extra`` frames: a dimension of a pulse. ``role``: the side of a `Pair` it belongs to, 2: its
    offsets (keys minus queries).
    """

    rate: Fraction
    extra: DelayLike = 0
    role: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.extra, Delay) and not self.extra.terms:
            object.__setattr__(self, "extra", self.extra.constant)


@dataclass(frozen=True)
class Merged:
    """``slower * frames * faster``: a dimension of a pulse in which time is merged with other axes."""

    slower: Length
    frames: Frames
    faster: Length


Dim = Union[int, Frames, Length, Merged]
"""A dimension in a pulse: a number, frames, a symbolic batch dimension, or a product of these."""


@dataclass(frozen=True)
class Ref:
    """The tensor `wire` of this pulse: a static value, a prefix value, or the pulse of a stream as it is."""

    wire: str


@dataclass(frozen=True)
class Window:
    """``frames`` frames of stream `wire`, the first of them `back` frames before this pulse (negative: inside it).

    ``border`` is what the reader sees of its input's border; the analysis folds the reader's own border from it.
    """

    wire: str
    back: DelayLike
    frames: Frames
    mask: Mask | TimedMask | None = None
    border: Padding | None = None
    role: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.back, Delay) and not self.back.terms:
            object.__setattr__(self, "back", self.back.constant)


@dataclass(frozen=True)
class QueryKeyRead:
    """Pair `wire` on windows of its two sides: (frames back, frames more than a pulse) of each; `swapped` sides."""

    wire: str
    a: tuple[DelayLike, DelayLike]
    b: tuple[DelayLike, DelayLike]
    swapped: bool = False


@dataclass(frozen=True)
class Position:
    """int64 [frames]: batch index of each frame of a window that starts `delay` frames before this pulse."""

    rate: Fraction
    delay: DelayLike = 0
    extra: DelayLike = 0
    role: int = 0


@dataclass(frozen=True)
class Offset:
    """int64 [offsets]: key minus query, from that of the last query and the first key on; the sides run at `rate`."""

    rate: Fraction


@dataclass(frozen=True)
class Start:
    """int64 scalar: batch index of the first frame of this pulse of a stream; negative while it warms up."""

    rate: Fraction
    delay: DelayLike


@dataclass(frozen=True)
class Count:
    """int64 scalar: `length` for the base frames seen so far (with an end of stream: the real ones)."""

    length: Length


@dataclass(frozen=True)
class Dims:
    """int64 [rank]: a shape."""

    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Number:
    """int64 [1]: a number of frames that the schedule finds."""

    value: Delay


@dataclass(frozen=True)
class Test:
    """What a step may depend on: that the stream may end (`ends`), that a wire comes late (`late` is above 0), or
    nothing (`always`).
    """

    ends: bool = False
    late: Delay = Delay()
    always: bool = False

    @staticmethod
    def past(extent: Length) -> Test:
        """That frames past the first `extent` come: where the stream may end, and always where that is a number."""
        return Test(ends=True, always=extent.constant is not None)


@dataclass(frozen=True)
class When:
    """``yes`` where `test` holds, ``no`` elsewhere."""

    test: Test
    yes: Expr
    no: Expr


@dataclass(frozen=True)
class Past:
    """The value that state `state` of this step had after the last pulse (zeros at first)."""

    state: str


@dataclass(frozen=True)
class Op:
    """An ONNX operator on expressions; output `index` of it."""

    op_type: str
    inputs: tuple[Expr | None, ...]
    attributes: tuple[tuple[str, Any], ...] = ()
    domain: str = ""
    outputs: int = 1
    index: int = 0

    @cached_property
    def _hash(self) -> int:
        return hash((self.op_type, self.inputs, self.attributes, self.domain, self.outputs, self.index))

    def __hash__(self) -> int:  # expressions are deep, and asked for again and again
        return self._hash


Expr = Union[Ref, Window, QueryKeyRead, Position, Offset, Start, Count, Dims, Number, When, Past, Const, Op]


@dataclass(frozen=True)
class State:
    """A state of a step. ``next`` is its value after this pulse; it starts as zeros.

    It is kept with the batch first, and a scalar with an axis of its own; nobody but lowering sees that. ``batch``:
    which axis of the value is the batch, also where that has a fixed size.
    """

    name: str
    dtype: ir.DataType
    shape: Shape
    next: Expr
    role: str
    test: Test | None = None
    batch: int | None = None


@dataclass(frozen=True)
class StateLink:
    """A state of the source at work: ``initial`` is what the pulse begins with, ``final`` what the next one must begin
    with.

    Carries with the same ``of`` have the same final value.
    """

    initial: str
    final: str
    of: str


@dataclass(frozen=True)
class Unsigned:
    """How a step makes or reads 8-bit integers that are carried as unsigned ones, each 128 more; ``undo`` is the
    step's in that form.
    """

    expr: Expr
    undo: Expr | None = None


@dataclass(frozen=True)
class Requirement:
    """A reason why a step can't stream, where `test` holds once the plan is scheduled; ``blame`` says it of a node."""

    test: Test
    reason: str
    hint: str
    blame: Blocker | None = None


@dataclass(frozen=True)
class Step:
    """Computes ``wires``, of which ``facts`` hold, from ``exprs`` on behalf of node `node`.

    ``history`` names a static tensor: the frames that came before this pulse, of a stream that has them from the
    caller. ``undo``: what gives back from the frames of the only wire those of the only stream that it was computed
    from, frame by frame and never larger: a history of that stream serves readers of the wire. A `deferred` step is
    computed where its wire is read, on the window of each reader. ``unsigned``: its other form, where its result or
    what it reads are signed 8-bit integers.
    """

    node: str
    op_type: str
    wires: tuple[str, ...]
    exprs: tuple[Expr, ...]
    facts: tuple[Fact, ...]
    states: tuple[State, ...] = ()
    carries: tuple[StateLink, ...] = ()
    history: str = ""
    undo: Expr | None = None
    unsigned: Unsigned | None = None
    deferred: bool = False
    requires: tuple[Requirement, ...] = ()

    @cached_property
    def everything(self) -> tuple[Expr, ...]:
        """All that is in its expressions and in its states' updates, each once."""
        return tuple(walk(*self.exprs, *(s.next for s in self.states)))

    @cached_property
    def leaves(self) -> tuple[Expr, ...]:
        """Every leaf of its expressions and of its states' updates."""
        return tuple(e for e in self.everything if not isinstance(e, (Op, When)))

    @cached_property
    def graphs(self) -> tuple[ir.Graph, ...]:
        """The subgraphs of its operators."""
        values = (value for e in self.everything if isinstance(e, Op) for _, value in e.attributes)
        graphs = (value.attr.value if isinstance(value, Attribute) else value for value in values)
        return tuple(graph for graph in graphs if isinstance(graph, ir.Graph))


@dataclass(frozen=True)
class Outcome:
    """What a rule gives: a fact per output of the node, and the steps that compute their wires.

    ``pulse_multiple``: where the node itself asks for pulses of so many base frames. ``length_multiple``: where it is
    what the facts say for streams of a multiple of so many base frames only.
    """

    facts: tuple[Fact, ...]
    steps: tuple[Step, ...] = ()
    pulse_multiple: int = 1
    length_multiple: int = 1


@dataclass(frozen=True)
class Options:
    """What the caller asked of the analysis.

    ``states``: (input, output) pairs that are states of the source itself. ``advance``: outputs may come before their
    time.
    """

    states: tuple[tuple[str, str], ...] = ()
    advance: bool = False


@dataclass(frozen=True)
class Plan:
    """The analysed model.

    ``facts`` are those of the source's wires (a view may name another wire as its carrier), ``wires`` those of the
    tensors that really flow, by name. ``inputs`` and ``outputs`` are the graph's, in their order. ``least``: base
    frames from which on all is true that was decided by the length of the stream. ``unread``: how many of the first
    frames of a wire, once it is scheduled, nobody reads: they may be wrong, or come never. ``waits``: by how many base
    frames wires come later than they could, of a plan in which it is settled where streams wait. ``length_multiple``:
    the streams have a multiple of so many base frames.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: dict[str, Fact]
    wires: dict[str, Fact]
    steps: tuple[Step, ...]
    blockers: tuple[Blocker, ...]
    pulse_multiple: int
    options: Options
    least: int = 1
    timing: Timing | None = None
    unread: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, int] = field(default_factory=dict)
    length_multiple: int = 1

    @property
    def ends(self) -> bool:
        """Whether the stream may end, of a plan that has been scheduled."""
        return self.timing is not None and self.timing.end_of_stream

    def producer(self) -> dict[str, Step]:
        """Step by wire."""
        return {wire: step for step in self.steps for wire in step.wires}


def parts(expr: Expr | None) -> tuple[Expr | None, ...]:
    """The expressions that one is made of; none for a leaf."""
    return expr.inputs if isinstance(expr, Op) else (expr.yes, expr.no) if isinstance(expr, When) else ()


def rebuilt(expr: Expr, of: Callable[[Expr], Expr]) -> Expr:
    """`expr` with what `of` makes of its parts; a leaf, or one whose parts stay the same, as it is."""
    if isinstance(expr, Op):
        inputs = tuple(None if e is None else of(e) for e in expr.inputs)
        return expr if all(a is b for a, b in zip(inputs, expr.inputs)) else replace(expr, inputs=inputs)
    return replace(expr, yes=of(expr.yes), no=of(expr.no)) if isinstance(expr, When) else expr


def walk(*exprs: Expr | None) -> Iterator[Expr]:
    """Every expression inside of `exprs`, themselves too; shared ones once."""
    stack, seen = [*exprs], set()
    while stack:
        expr = stack.pop()
        if expr is not None and id(expr) not in seen:
            seen.add(id(expr))
            yield expr
            if isinstance(expr, (Op, When)):
                stack.extend(parts(expr))


def leaves(step: Step) -> tuple[Expr, ...]:
    """Every leaf of a step's expressions and of its states' updates."""
    return step.leaves
