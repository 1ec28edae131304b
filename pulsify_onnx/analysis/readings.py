"""Readings of a node: every way in which it may be understood, the first that applies and gives an outcome is taken.

A reading is data. It gets the node and `then`, what the readings after it make of a node: so one may see another node
(a row of it, a cache) or finish what they give (borders). A walk may have readings of its own before these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pulsify_onnx.algebra.facts import Blocked, Deferred, Nothing, Running, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.plan import Outcome
from pulsify_onnx.analysis import source_states
from pulsify_onnx.analysis.borders import with_borders
from pulsify_onnx.analysis.untouched import fold_static, running
from pulsify_onnx.errors import refuse
from pulsify_onnx.rules import lookup
from pulsify_onnx.rules.arithmetic import ELEMENTWISE
from pulsify_onnx.rules.axes import squeezed_whole
from pulsify_onnx.rules.edges import at_edges, of_edges
from pulsify_onnx.rules.kit import shape_arithmetic
from pulsify_onnx.rules.kit.combinators import UNKNOWN_SHAPE
from pulsify_onnx.rules.kit.domains import total
from pulsify_onnx.rules.kit.merged_time import flattened, flattened_time
from pulsify_onnx.rules.kit.node import Node
from pulsify_onnx.rules.kit.nothing import beside_nothing, emptied
from pulsify_onnx.rules.kit.traits import Trait, has
from pulsify_onnx.rules.limited import limited
from pulsify_onnx.rules.pending import closed
from pulsify_onnx.rules.relative import applied
from pulsify_onnx.rules.resumed import carried_on

Next = Callable[[Node], Outcome]
"""What the readings after this one make of a node."""


@dataclass(frozen=True)
class Reading:
    """One way to understand a node. `run` gives None where it turns out not to be it."""

    name: str
    applies: Callable[[Node], bool]
    run: Callable[[Node, Next], Outcome | None]


def apply_readings(node: Node, readings: Sequence[Reading]) -> Outcome:
    """What the first of the `readings` that understands a node makes of it. Raises `Refusal`."""
    for k, reading in enumerate(readings):
        if reading.applies(node):
            outcome = reading.run(node, partial(apply_readings, readings=readings[k + 1 :]))
            if outcome is not None:
                return outcome
    raise AssertionError(f"no reading understands {node.op_type}")


def _every(node: Node) -> bool:
    return True


def _blocked(node: Node, then: Next) -> Outcome | None:
    if Blocked not in node.kinds:
        return None
    by = [fact.by for fact in node.read_facts if isinstance(fact, Blocked)]
    return Outcome(tuple(Blocked(o, by[0]) for o in node.outputs))


def _of_shapes(node: Node) -> bool:
    """Whether a node computes with shapes; sizes that only running the model tells are values like others."""
    return (
        shape_arithmetic.asks_for_sizes(node) or (ShapeTensor in node.kinds and node.kinds <= {Static, ShapeTensor})
    ) and shape_arithmetic.told(node)


def _shapes(node: Node, then: Next) -> Outcome | None:
    fact = shape_arithmetic.evaluate_shapes(node)
    if fact is None and shape_arithmetic.asks_for_sizes(node):
        refuse("the shape of its input is not known", hint=UNKNOWN_SHAPE)
    return None if fact is None else Outcome((fact,))


def _identity(node: Node, then: Next) -> Outcome | None:
    (fact,) = node.facts
    return None if fact is None else Outcome((fact,))


def _source_state(node: Node, then: Next) -> None:
    source_states.check_use(node)


def _beside_nothing(node: Node) -> bool:
    return Nothing in node.kinds and not shape_arithmetic.asks_for_sizes(node)


def _has_merged_axes(node: Node) -> bool:
    return any(map(flattened, node.read_facts))


def _meets_the_whole(node: Node) -> bool:
    """Whether a value over the whole stream meets frames, or is given the length of the stream."""
    kinds = node.kinds
    spreads = (
        has(node, Trait.REPEATS)
        and isinstance(node.facts[0], Running)
        and any(isinstance(f, ShapeTensor) and any(v.moves for v in f.values) for f in node.facts[1:])
    )
    return Deferred in kinds or (Stream in kinds and Running in kinds) or spreads


def _of_running_values(node: Node) -> bool:
    kinds = node.kinds
    return Running in kinds or (kinds <= {Static, ShapeTensor} and node.domain == "" and node.op_type in ELEMENTWISE)


READINGS: tuple[Reading, ...] = (
    Reading("blocked", _every, _blocked),
    Reading("beside nothing", _beside_nothing, beside_nothing),
    Reading("nothing", _every, lambda node, then: emptied(node, then(node))),
    Reading("shapes", _of_shapes, _shapes),
    Reading("identity", lambda node: has(node, Trait.IDENTITY), _identity),
    Reading("sizes of one", _every, lambda node, then: squeezed_whole(node)),
    Reading("static", lambda node: node.kinds <= {Static}, lambda node, then: fold_static(node)),
    Reading("source state", _every, _source_state),
    Reading("merged axes", _has_merged_axes, flattened_time),
    Reading("edges", of_edges, at_edges),
    Reading("limited", lambda node: Deferred in node.kinds, limited),
    Reading("deferred", _meets_the_whole, lambda node, then: closed(node)),
    Reading("running", _of_running_values, lambda node, then: running(node)),
    Reading("cached", _every, carried_on),
    Reading("borders", _every, lambda node, then: total(with_borders(node, then), node.world)),
    Reading("relative", _every, lambda node, then: applied(node, lookup(node))),
    Reading("plain", _every, lambda node, then: lookup(node)(node)),
)
"""In the order in which they are tried."""
