"""Linear interpolation by index arithmetic, as dynamo exports it: the Resize that it is.

What the positions are is established by running them beside a Resize's at many lengths, not proved. Where they are
others the model stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir

from pulsify_onnx.algebra.facts import ShapeTensor, Static, Stream
from pulsify_onnx.algebra.length import TIME
from pulsify_onnx.algebra.multiples import promised
from pulsify_onnx.algebra.plan import Options, Plan
from pulsify_onnx.analysis.axis import choose
from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import PulsifyError
from pulsify_onnx.model.edit import GraphEditor, Place
from pulsify_onnx.model.load import Source
from pulsify_onnx.ort import BY_ZERO, session
from pulsify_onnx.prepare.passes import NAMED, ORDERED, Contract, Prepared
from pulsify_onnx.rules.interpolated import Interpolation, interpolations

LENGTHS = (*range(1, 33), 96, 481, 3001, 20000)
"""Base frames of the streams for which positions are looked at."""

FEWEST = 6
"""At so many different lengths at least they must be there."""

MOST_NODES = 100
"""More nodes compute no positions."""

NEAR = 1e-3
"""How near sampling points must be, in frames: positions are computed in float32, far ones with larger errors."""


@dataclass(frozen=True)
class InterpolationAsResize:
    """Every sum of two frames picked by position that is a linear Resize by a whole factor becomes one."""

    requires: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED)
    ensures: ClassVar[tuple[Contract, ...]] = (NAMED, ORDERED)

    def __call__(self, model: Prepared) -> Prepared:
        """The same model where there is none."""
        while (found := _rewritten(model)) is not None:  # what stands behind one is understood now
            model = found
        return model


def _rewritten(model: Prepared) -> Prepared | None:
    """The model with all that can be told now as a Resize; None where there is none."""
    if next(interpolations(model.source.model.graph), None) is None:
        return None
    try:
        axes, plan = model.read or choose(model.source, model.axes, Options())
    except PulsifyError:  # told by the analysis itself
        return None
    source = replace(model.source, model=model.source.model.clone())
    labels = {v.name: v.shape[axes[v.name]] for v in source.inputs if v.name in axes and v.shape is not None}
    unit = math.lcm(*(promised(d.value) for d in labels.values() if isinstance(d, ir.SymbolicDim)))
    found = list(_established(source, plan, list(interpolations(source.model.graph)), unit))
    editor = GraphEditor(source.model.graph, "resize/{kind}")
    for each in found:
        place, old = editor.before(each.node), each.node.outputs[0]
        none = place.constant(np.zeros(0, np.float32))
        made = place.op("Resize", each.data, none, none, _sizes(place, each))
        node = made.producer()
        assert node is not None
        for name, value in (("mode", "linear"), ("coordinate_transformation_mode", "half_pixel")):
            node.attributes[name] = ir.AttrString(name, value)
        if old.type is not None:
            made.type, made.shape = old.type, old.shape
        node.name, made.name, old.name = each.node.name, old.name, made.name  # the sum goes
        ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
    ir.passes.common.RemoveUnusedNodesPass()(source.model)
    return replace(model, source=source, read=None) if found else None


def _sizes(place: Place, each: Interpolation) -> ir.Value:
    """Those of the result: as many frames along the axis as there are positions, of which the analysis knows how many
    there are.
    """
    whole, axes = place.op("Shape", each.data), place.constant(np.asarray([0]))
    parts = [place.op("Slice", whole, axes, place.constant(np.asarray([each.axis])), axes)]
    parts.append(place.op("Shape", each.counted))
    if each.axis < -1:
        ends = place.constant(np.asarray([each.axis + 1])), place.constant(np.asarray([np.iinfo(np.int64).max]))
        parts.append(place.op("Slice", whole, *ends, axes))
    return place.op("Concat", *parts, axis=0)


def _established(source: Source, plan: Plan, found: list[Interpolation], unit: int) -> Iterator[Interpolation]:
    """Those that are a Resize along the stream by one whole factor, for streams of a multiple of `unit` frames; their
    axis is negative.
    """
    for each in found:
        data = plan.facts.get(each.data.name or "")
        if not isinstance(data, Stream) or data.axis != each.axis % data.rank or data.dtype != ir.DataType.FLOAT:
            continue
        each = replace(each, axis=data.axis - data.rank)
        positions = _Positions.of(source, plan, (each.first, each.second, each.share, each.counted))
        if positions is None:
            continue
        seen: dict[int, int | None] = {}
        for n in LENGTHS:
            frames = data.extent.at(n * unit)
            if frames > 0 and frames not in seen:
                made = positions.at(n * unit)
                seen[frames] = None if made is None else _factor(frames, each.axis, *made)
        if len(seen) >= FEWEST and len(factors := set(seen.values())) == 1 and None not in factors:
            yield each


@dataclass(frozen=True)
class _Positions:
    """Values that follow from the length of the stream alone: the nodes that compute them of `given` ones."""

    runner: Any
    given: Mapping[str, ShapeTensor | Array]

    @staticmethod
    def of(source: Source, plan: Plan, values: Sequence[ir.Value]) -> _Positions | None:
        """None where something else is needed to compute them."""
        given: dict[str, ShapeTensor | Array] = {}
        waiting, nodes = list(values), set[ir.Node]()
        while waiting:
            value = waiting.pop()
            name, fact, node = value.name or "", plan.facts.get(value.name or ""), value.producer()
            if name in given or (node is not None and node in nodes):
                continue
            array = fact.value.array if isinstance(fact, Static) and fact.value is not None else source.constant(name)
            if isinstance(fact, ShapeTensor):
                given[name] = fact
            elif array is not None:
                given[name] = array
            elif (
                node is None
                or len(nodes) > MOST_NODES
                or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
                or (node.op_type in BY_ZERO and not _divides(node, plan))
            ):
                return None
            else:
                nodes.add(node)
                waiting += [v for v in node.inputs if v is not None]
        order = [ir.serde.serialize_node(n) for n in source.model.graph if n in nodes]
        leaves = [
            onnx.helper.make_tensor_value_info(
                name,
                int(f.dtype) if isinstance(f, ShapeTensor) else onnx.helper.np_dtype_to_tensor_dtype(f.dtype),
                list(f.shape),
            )
            for name, f in given.items()
        ]
        results = [
            onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(v.name or "" for v in values)
        ]
        opsets = [onnx.helper.make_opsetid(domain, at) for domain, at in source.model.opset_imports.items()]
        graph = onnx.helper.make_graph(order, "positions", leaves, results)
        try:
            model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=source.model.ir_version)
            runner = session(model.SerializeToString(), severity=4, plain=True)
        except Exception:  # what can't run as it stands stays as it stands
            return None
        return _Positions(_Named(runner, tuple(v.name or "" for v in values)), given)

    def at(self, frames: int) -> list[Array] | None:
        """The values for a stream of so many base frames; None where they are not computed."""
        feeds = {name: _told(f, frames) if isinstance(f, ShapeTensor) else f for name, f in self.given.items()}
        try:
            return [np.asarray(x) for x in self.runner(feeds)]
        except Exception:  # not every length suits every model
            return None


def _divides(node: ir.Node, plan: Plan) -> bool:
    """Whether what it divides by is known not to be a whole number that is 0."""
    by = node.inputs[1]
    fact = plan.facts.get(by.name or "") if by is not None else None
    if not isinstance(fact, (ShapeTensor, Static)):
        return False
    array = fact.value.array if isinstance(fact, Static) and fact.value is not None else None
    return fact.dtype.is_floating_point() or (array is not None and bool(array.all()))


@dataclass(frozen=True)
class _Named:
    session: Any
    outputs: tuple[str, ...]

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any]:
        return list(self.session.run(list(self.outputs), feeds))


def _told(sizes: ShapeTensor, frames: int) -> Array:
    at = [v.exact(dict.fromkeys(v.symbols(), 1) | {TIME: frames}) for v in sizes.values]
    return np.asarray([float(v) for v in at]).astype(sizes.dtype.numpy()).reshape(sizes.shape)


def _factor(frames: int, axis: int, first: Array, second: Array, share: Array, counted: Array) -> int | None:
    """By which whole factor a linear Resize would sample at these positions; None where it would not."""
    made = first.size
    if made % frames or made == frames or not first.shape == counted.shape == (made,):
        return None
    if second.shape != (made,) or share.size != made or share.ndim + axis < 0 or share.shape[axis] != made:
        return None
    factor, last = made // frames, frames - 1
    points = np.maximum((np.arange(made) + 0.5) / factor - 0.5, 0)
    between = first < last
    reached = np.where(between, first + share.ravel().astype(np.float64), np.maximum(points, last))
    whole = first.min() >= 0 and first.max() <= last and np.array_equal(second, np.minimum(first + 1, last))
    inside = not between.any() or (share.min() >= 0 and share.ravel()[between].max() <= 1)
    return factor if whole and inside and np.allclose(reached, points, rtol=NEAR / 2000, atol=NEAR) else None
