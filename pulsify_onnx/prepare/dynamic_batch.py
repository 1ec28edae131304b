"""A batch of any size for a model that was exported for so many rows: its inputs get a batch dimension, and numbers
that stand for it follow.

Every change leaves the model what it is for as many rows as it was exported for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Fact, ShapeTensor, Static, Stream
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis.walker import analyze
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import Blocker, CannotStream
from pulsify_onnx.model.edit import GraphEditor
from pulsify_onnx.model.load import BATCH_NAMES, Source
from pulsify_onnx.model.subgraphs import all_nodes, subgraphs
from pulsify_onnx.prepare.passes import NAMED, ORDERED, READ, Contract, Prepared
from pulsify_onnx.rules.kit.traits import Trait, declared, has

BATCH_NAME = "batch"

MOST_REPAIRS = 24


def batch_axis(axis: int) -> int:
    """Where an input that streams along `axis` has its batch: first, or after time."""
    return 1 if axis == 0 else 0


def _batches(model: Prepared) -> str:
    axes = model.read[0] if model.read is not None else {}
    shapes = {v.name: v.shape for v in model.source.inputs if v.name in axes}
    sizes = {
        name: shape[batch_axis(axes[name])] if shape else None for name, shape in shapes.items() if name is not None
    }
    return ", ".join(name for name, size in sizes.items() if size is None or isinstance(size, int))


ANY_BATCH = Contract("every stream has a batch of any size", _batches)


@dataclass(frozen=True)
class MakeBatchDynamic:
    """A model whose inputs have a batch of `rows` becomes one for any number of rows.

    ``own``: on which axis the states of the source's own have the batch. ``statics``: whether static inputs with as
    many rows have it too. ``meeting``: names of nodes in which rows were found to meet, again and again: constants of
    theirs get the rows that they need.
    """

    rows: int
    own: Mapping[str, int] = field(default_factory=dict)
    statics: bool = True
    meeting: tuple[tuple[str, ...], ...] = ()

    requires: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED, READ)
    ensures: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED, READ, ANY_BATCH)

    def __call__(self, model: Prepared) -> Prepared:
        """The model as it was where nodes in ``meeting`` have no such constants. Raises `CannotStream`."""
        assert model.read is not None
        _, plan = model.read
        rewriting = _Rewriting(model.source, plan, self.rows, self.own, self.statics)
        wide = rewriting.analysed(plan.options)
        for names in self.meeting:
            if not rewriting.repair(names, wide):
                return model
            wide = rewriting.analysed(plan.options)
        return replace(model, source=rewriting.source, axes=rewriting.axes, read=(rewriting.axes, wide))


class _Rewriting:
    """A copy of `source`, as `plan` reads it, whose batch of `rows` becomes one of any size.

    Raises `CannotStream` where a stream input has no such batch.
    """

    def __init__(self, source: Source, plan: Plan, rows: int, own: Mapping[str, int], statics: bool):
        self.plan, self.rows = plan, rows
        self.model = source.model.clone()
        self.source = replace(source, model=self.model)
        self.axes = {name: fact.axis for name in plan.inputs if isinstance(fact := plan.facts[name], Stream)}
        self.editor = GraphEditor(self.model.graph, BATCH_NAME)
        for value in self.source.inputs:
            name = value.name or ""
            self._widen(
                value,
                batch_axis(self.axes[name])
                if name in self.axes
                else own[name]
                if name in own
                else self._static(value, statics),
            )
        for node in all_nodes(self.model.graph):
            for out in node.outputs:
                out.shape = None
            for body in subgraphs(node.attributes.values()):
                for value in body.inputs:
                    value.shape = (
                        None if value.shape is None else ir.Shape([None if d == rows else d for d in value.shape])
                    )
        for node in list(self.model.graph):
            if has(node, Trait.RESHAPES, Trait.EXPANDS):
                self._follow(node)

    def analysed(self, options: Options) -> Plan:
        """The plan of the copy, in which constants that need it have become as many as there are rows. Raises
        `CannotStream`.
        """
        plan = analyze(self.source, self.axes, options)
        for _ in range(MOST_REPAIRS):
            if not plan.blockers or not self.repair({b.node for b in plan.blockers}, plan):
                break
            plan = analyze(self.source, self.axes, options)
        if plan.blockers:
            raise CannotStream(plan.blockers, self.axes)
        return plan

    def repair(self, names: Collection[str], plan: Plan) -> bool:
        """Make constants of the nodes `names` have the rows that they need; false where there is nothing to do."""
        return any([self._repaired(node, plan) for node in list(self.model.graph) if node.name in names])

    def _static(self, value: ir.Value, statics: bool) -> int | None:
        """Where an input that does not stream has the batch; None where it is the same for all rows."""
        shape = list(value.shape or ())
        named = [
            k
            for k, d in enumerate(shape)
            if not isinstance(d, int) and str(d.value).lower().replace("-", "_") in BATCH_NAMES
        ]
        if len(named) == 1:
            return named[0]
        return 0 if statics and len(shape) > 1 and shape[0] == self.rows else None

    def _widen(self, value: ir.Value, at: int | None) -> None:
        shape = list(value.shape or ())
        if at is None:
            return
        if (
            at >= len(shape)
            or (isinstance(shape[at], int) and shape[at] != self.rows)
            or (value.name in self.axes and not isinstance(shape[at], int))
        ):
            size = shape[at] if at < len(shape) else "missing"
            raise CannotStream(
                (
                    Blocker(
                        value.name or "",
                        "input",
                        f"its dimension {at}, where a batch would be, is {size}, not {self.rows}",
                        f"export with a batch of {self.rows}, or with a dynamic batch",
                    ),
                )
            )
        value.shape = ir.Shape([BATCH_NAME if k == at else d for k, d in enumerate(shape)])

    # numbers that stand for the batch

    def _follow(self, node: ir.Node) -> None:
        """Where its input has as many rows, a Reshape to that number keeps what is there, and an Expand to it
        expands nothing.
        """
        x = self._shape(node.inputs[0])
        target = self._sizes(node.inputs[1])
        if x is None or target is None or 0 in target:
            return
        shift = 0 if has(node, Trait.RESHAPES) else len(x) - len(target)
        same = [t == self.rows and 0 <= k + shift < len(x) and x[k + shift] == self.rows for k, t in enumerate(target)]
        keeps = 0 if has(node, Trait.RESHAPES) else 1
        if not any(same) or self.rows == keeps:
            return
        node.attributes.pop("allowzero", None)  # no size is 0
        place = self.editor.before(node)
        if all(t is not None for t in target):
            shape = place.constant(np.asarray([keeps if s else t for s, t in zip(same, target)], np.int64))
        else:
            shape = place.op("Mul", node.inputs[1], place.constant(np.asarray([not s for s in same], np.int64)))
            if keeps:
                shape = place.op("Add", shape, place.constant(np.asarray(same, np.int64)))
        node.replace_input_with(1, shape)

    def _shape(self, value: ir.Value | None) -> list[int | None] | None:
        """Dimensions of a tensor of the source, None for those that are not known; None for a constant."""
        fact = self.plan.facts.get(value.name or "") if value is not None else None
        if fact is None or isinstance(fact, ShapeTensor) or (isinstance(fact, Static) and fact.value is not None):
            return None
        return [d.constant for d in getattr(fact, "shape", ())]

    def _sizes(self, value: ir.Value | None) -> list[int | None] | None:
        fact = self.plan.facts.get(value.name or "") if value is not None else None
        if isinstance(fact, ShapeTensor):
            return [v.constant for v in fact.values]
        found = self._array(fact)
        return None if found is None else [int(v) for v in found.reshape(-1)]

    def _array(self, fact: Fact | None) -> Array | None:
        if not isinstance(fact, Static):
            return None
        return fact.value.array if fact.value is not None else self.source.constant(fact.wire)

    # constants that are the same for every row

    def _repaired(self, node: ir.Node, plan: Plan) -> bool:
        """Whether constants among the inputs of a node now have the rows of the batch that they had, or one that
        stands for all.
        """
        done = False
        for k, value in enumerate(node.inputs):
            array = self._array(self.plan.facts.get(value.name or "")) if value is not None else None
            at = None if array is None else self._rows_of(node, k, array, plan)
            if array is None or at is None or not (array == np.take(array, [0], at)).all():
                continue
            one = self.editor.before(node).constant(np.take(array, [0], at))
            node.replace_input_with(
                k, self._expanded(node, one, array.shape, at) if has(node, Trait.JOINS, Trait.CARRIES) else one
            )
            done = True
        return done

    def _rows_of(self, node: ir.Node, index: int, array: Array, plan: Plan) -> int | None:
        """The axis of a constant that runs along the batch of the other inputs, where it has as many rows as the
        batch had.
        """
        if has(node, Trait.CARRIES):
            carried = declared(node, Trait.CARRIES)(node.attributes, len(node.inputs))
            return next((k for k, d in enumerate(array.shape) if d == self.rows), None) if index in carried else None
        for value in node.inputs:
            fact = plan.facts.get(value.name or "") if value is not None else None
            if isinstance(fact, Stream) and (self.rows > 1 or has(node, Trait.JOINS)):
                at = next((k for k, d in enumerate(fact.shape) if str(d) == BATCH_NAME), -1) - fact.rank + array.ndim
                return at if at >= 0 and array.shape[at] == self.rows else None
        return None

    def _expanded(self, node: ir.Node, one: ir.Value, shape: Sequence[int], at: int) -> ir.Value:
        """`one`, as many times along axis `at` as there are rows."""
        place, name = self.editor.before(node), next(iter(self.axes))
        x = next(v for v in self.source.inputs if v.name == name)
        rows = place.op(
            "Gather", place.op("Shape", x), place.constant(np.asarray([batch_axis(self.axes[name])], np.int64))
        )
        parts = [
            place.constant(np.asarray(shape[:at], np.int64)),
            rows,
            place.constant(np.asarray(shape[at + 1 :], np.int64)),
        ]
        whole = place.op("Concat", *(p for p in parts if p is rows or (p.shape is not None and p.shape[0])), axis=0)
        return place.op("Expand", one, whole)
