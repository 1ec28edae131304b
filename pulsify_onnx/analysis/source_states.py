"""States that the source itself already has: an input that the caller feeds back from an output.

The pair is a state if a pulse may begin with what the last one has left. Recurrences and caches say what they begin
with and what they leave (`Carry`); what lies between them and the graph's input and output only moves data, which is
tried on random values: what the caller feeds back must give every carry exactly what it left.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra import evaluate
from pulsify_onnx.algebra.facts import Blocked, Fact, Running, Shape, Static
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Expr, Op, Ref, StateLink, Step, Window, leaves, walk
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.errors import Blocker, refuse
from pulsify_onnx.rules.kit.node import Context, Node
from pulsify_onnx.rules.kit.traits import Trait, declared, has

ROWS = 3
"""Size of symbolic dimensions where values are tried."""

TELL = "name another output with --state INPUT=OUTPUT, or leave this pair out"


def check_use(node: Node) -> None:
    """Refuse a state of the source that is read otherwise than to begin with."""
    begins: Sequence[int] = declared(node, Trait.BEGINS, ())
    if has(node, Trait.CARRIES):
        begins = declared(node, Trait.CARRIES)(node.attributes, len(node.facts))
    facts = [f for k, f in enumerate(node.facts) if k not in begins]
    if any(isinstance(f, Static) and f.own for f in (*facts, *node.outer.values())):
        refuse(
            "it reads a state of the source at every frame, where the stream has other values of it than the batch "
            "model",
            hint="leave this pair out of --state, or export a recurrence (RNN, GRU, LSTM, Scan) or Concat(cache, "
            "frames)",
        )


def check_states(
    pairs: Sequence[tuple[str, str]],
    facts: Mapping[str, Fact],
    steps: Sequence[Step],
    world: Context,
    outputs: Sequence[str],
) -> Iterator[Blocker]:
    """What keeps `pairs` from being states."""
    if not pairs or any(isinstance(f, Blocked) for f in facts.values()):
        return
    carries = [c for step in steps for c in step.carries]
    yield from _without_an_output(facts, steps, {c.of for c in carries}, outputs)
    values = _Values(world, carries)
    for name, output in pairs:
        reason = _no_pair(facts.get(name), facts.get(output), name, output)
        left = None if reason else values.of(facts[output].wire)
        if left is None:
            yield Blocker(
                name,
                "state",
                reason or f"{output} is computed from more than what the recurrences and caches of the model leave",
                TELL,
            )
            return
        values.known[name] = left
    fed = ", ".join(f"{output} back as {name}" for name, output in pairs)
    for carry in carries:
        begins, left = values.of(carry.initial), values.final(carry)
        if begins is None or begins.shape != left.shape or not (begins == left).all():
            yield Blocker(
                carry.of,
                "state",
                f"what it begins with ({carry.initial}) is not what it has left ({carry.final}) when the caller "
                f"feeds {fed}",
                TELL,
            )
    read = {wire for carry in carries for wire in values.read(carry.initial)}
    for name, _ in pairs:
        if name not in read:
            yield Blocker(name, "state", "no recurrence and no cache begins with it", TELL)


def _without_an_output(
    facts: Mapping[str, Fact], steps: Iterable[Step], caught: set[str], outputs: Iterable[str]
) -> Iterator[Blocker]:
    for name in outputs:
        fact = facts.get(name)
        if isinstance(fact, Static) and fact.own:
            yield Blocker(
                name,
                "output",
                "it is computed from a state of the source and nothing else, so it changes with every pulse",
                "remove this output",
            )
    resumed = {step.wires[0] for step in steps if step.history}
    for step in steps:
        derived = any(isinstance(leaf, Window) and leaf.wire in resumed for leaf in leaves(step))
        if step.history and step.wires[0] not in caught and not derived:
            yield Blocker(
                step.node,
                step.op_type,
                "it begins with a cache of the source whose next value, its last frames, is no output",
                "export the last frames of this Concat as an output",
            )


def _no_pair(a: Fact | None, b: Fact | None, name: str, output: str) -> str:
    """Why `output` can't be what `name` becomes; empty where it can."""
    if not isinstance(a, Static) or not isinstance(b, Running) or a.dtype != b.dtype or not _fits(a.shape, b.shape):
        return f"{output} is not what {name} becomes: it has other dimensions, or is no value over the frames so far"
    fixed = sum(d.constant is None for d in b.shape) <= 1 and all(d.constant != 0 for d in b.shape)
    return "" if fixed else f"its size is not fixed: {', '.join(map(str, b.shape))}"


def _fits(begins: Shape, left: Shape) -> bool:
    """Whether the shapes are the same; a dimension of any size (a batch) may turn out to be of the size that is
    left.
    """
    return len(begins) == len(left) and all(
        a == b or (a.constant is None and b.constant is not None) for a, b in zip(begins, left)
    )


class _Values:
    """Values of wires between states and carries: the final value of every carry is drawn at random."""

    def __init__(self, world: Context, carries: Iterable[StateLink]):
        self.world = world
        self.finals = {c.final: c for c in carries}
        self.known: dict[str, Array] = {}

    def final(self, carry: StateLink) -> Array:
        """What a carry leaves."""
        fact = self.world.fact_of(carry.final)
        assert isinstance(fact, Running)
        shape = [_size(d) for d in fact.shape]
        rng = np.random.default_rng(zlib.crc32(carry.of.encode()))
        kind = fact.dtype.numpy()
        if fact.dtype == ir.DataType.BOOL:
            return np.asarray(rng.random(shape) < 0.5)
        drawn = rng.standard_normal(shape) if fact.dtype.is_floating_point() else rng.integers(0, 100, shape)
        return np.asarray(drawn).astype(kind)

    def of(self, wire: str) -> Array | None:
        """The value of a wire; None where it depends on anything else."""
        if wire in self.finals:
            return self.final(self.finals[wire])
        if wire not in self.known:
            constant, step = self.world.value_of(wire), self.world.step_of(wire)
            found = (
                constant.array
                if constant is not None
                else self._run(step.exprs[step.wires.index(wire)])
                if step is not None
                else None
            )
            if found is None:
                return None
            self.known[wire] = found
        return self.known[wire]

    def _run(self, expr: Expr | None) -> Array | None:
        if isinstance(expr, Const):
            return expr.array
        if isinstance(expr, Ref):
            return self.of(expr.wire)
        if not isinstance(expr, Op):
            return None
        inputs = [None if e is None else self._run(e) for e in expr.inputs]
        if any(value is None and e is not None for value, e in zip(inputs, expr.inputs)):
            return None
        found = evaluate.evaluate(
            expr.op_type,
            inputs,
            dict(expr.attributes),
            opset=self.world.opset,
            domain=expr.domain,
            outputs=expr.outputs,
        )
        return None if found is None else found[expr.index]

    def read(self, wire: str) -> set[str]:
        """Every wire that `wire` is computed from, itself too."""
        found, todo = {wire}, [wire]
        while todo:
            step = self.world.step_of(todo.pop())
            for expr in walk(*step.exprs) if step is not None else ():
                if isinstance(expr, Ref) and expr.wire not in found:
                    found.add(expr.wire)
                    todo.append(expr.wire)
        return found


def _size(d: Length) -> int:
    return d.constant if d.constant is not None else ROWS
