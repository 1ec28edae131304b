"""What random networks are drawn with: wires whose lengths are known at many stream lengths, nodes as every opset
has them, the model they make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from testing.opsets import NotYet, as_of

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wire:
    """A tensor [rows, channels, T] (or [rows, channels, T, bins]) with its length for every stream length of the
    network.
    """

    name: str
    channels: int
    bins: int | None
    lengths: Lengths
    rate: Fraction


@dataclass(frozen=True)
class Network:
    """A generated model: the batch model runs at the stream lengths `lengths`, and at all larger multiples of `unit`.

    `lanes`: its batch is symbolic; `kinds`: what was drawn for it.
    """

    model: onnx.ModelProto
    lengths: tuple[int, ...]
    unit: int
    stationary: bool
    lanes: bool = False
    kinds: frozenset[str] = frozenset()


class Invalid(Exception):
    """The drawn operator does not fit; draw another."""


@dataclass
class Builder:
    """Draws one network from a seed."""

    rng: np.random.Generator
    opset: int = 17
    unit: int = 1
    shortest: int = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    heads: list[tuple[str, tuple[int | None, ...]]] = field(default_factory=list)
    count: int = 0
    stationary: bool = True
    lanes: bool = False

    # small draws

    def pick(self, *options: Any) -> Any:
        """One of `options`."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return bool(self.rng.random() < p)

    def constant(self, value: Any) -> str:
        """An initializer."""
        self.count += 1
        name = f"c{self.count}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        """Random weights of a scale that keeps signals near one."""
        fan = max(1, int(np.prod(shape[1:])))
        return self.constant(((self.rng.standard_normal(shape) + 0.1) / math.sqrt(fan)).astype(np.float32))

    def kernel(self, *shape: int) -> str:
        """Random weights; along axis 2, one in six has taps at an end that are all zero. Which one follows from the
        weights, so that nothing else is drawn anew.
        """
        name = self.weight(*shape)
        drawn = numpy_helper.to_array(self.weights[-1]).copy()
        chance = np.random.default_rng(int(np.abs(drawn.flat[0]) * 2**24))
        if shape[2] > 1 and chance.random() < 1 / 6:
            cut = int(chance.integers(1, shape[2]))
            drawn[:, :, slice(cut, None) if chance.random() < 0.7 else slice(0, cut)] = 0
            self.weights[-1].CopyFrom(numpy_helper.from_array(drawn, name))
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.asarray(values, np.int64))

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; the name of its output (or a list of names)."""
        names = []
        for _ in range(outputs):
            self.count += 1
            names.append(f"t{self.count}")
        try:
            op_type, given, attributes = as_of(
                self.opset, op_type, inputs, attributes, {w.name: w for w in self.weights}
            )
        except NotYet:
            raise Invalid from None
        self.nodes.append(helper.make_node(op_type, given, names, name=f"{op_type}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def mean(self, x: str, axis: int, keepdims: int) -> str:
        """An average over one axis, as the opset has it."""
        if self.opset < 18:
            return str(self.node("ReduceMean", x, axes=[axis], keepdims=keepdims))
        return str(self.node("ReduceMean", x, self.ints(axis), keepdims=keepdims))

    def wire(self, name: str, like: Wire, **changes: Any) -> Wire:
        """Register `name` as a wire like another one."""
        values = {"channels": like.channels, "bins": like.bins, "lengths": like.lengths, "rate": like.rate, **changes}
        made = Wire(name, **values)
        self.wires.append(made)
        return made

    def any(self, ranks: tuple[int, ...] = (3, 4)) -> Wire:
        """A wire, mostly a late one."""
        fitting = [w for w in self.wires if (3 if w.bins is None else 4) in ranks]
        if not fitting:
            raise Invalid
        back = int(self.rng.geometric(0.35))
        return fitting[max(0, len(fitting) - back)]

    @staticmethod
    def grown(lengths: Lengths) -> Lengths:
        """`lengths`, if every one is a tensor that runtimes take."""
        if lengths.min() < 1 or lengths.max() > 4000:
            raise Invalid
        return lengths


def begin(b: Builder, lengths: Lengths, layout: str) -> None:
    """The inputs: a stream, now and then another one and a gain."""
    rows = "N" if b.lanes else 1
    start = 1 if layout == "NT" else b.pick(1, 2, 3, 4)
    sizes = {"N": rows, "C": start, "T": "T"}
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [sizes[axis] for axis in layout]))
    name = (
        "x"
        if layout == "NCT"
        else b.node("Unsqueeze", "x", b.ints(1))
        if layout == "NT"
        else b.node("Transpose", "x", perm=[1, 2, 0])
    )
    b.wires.append(Wire(name, start, None, lengths, Fraction(1)))
    if b.chance(0.2):
        b.inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [rows, 2, "T"]))
        b.wires.append(Wire("z", 2, None, lengths, Fraction(1)))
    if b.chance(0.2):
        b.inputs.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1, 1, 1]))
        b.wire(b.node("Mul", b.wires[-1].name, "gain"), b.wires[-1])


def ends_of(b: Builder) -> list[Wire]:
    """Wires that nothing reads: the last one, and others by chance."""
    used = {name for n in b.nodes for name in n.input}
    graph_inputs = {v.name for v in b.inputs}
    ends = [w for w in b.wires if w.name not in used | graph_inputs] or [b.wires[-1]]
    return [ends[-1], *(w for w in ends[:-1] if b.rng.random() < 0.5)][:4]


def model_of(b: Builder, ends: list[Wire]) -> onnx.ModelProto:
    """What was drawn, with these wires and the values over whole streams as outputs."""
    nodes, outputs, rows = list(b.nodes), [], "N" if b.lanes else 1
    for k, w in enumerate(ends):
        nodes.append(helper.make_node("Identity", [w.name], [f"y{k}"], name=f"out{k}"))
        shape = [rows, w.channels, f"U{k}"] + ([] if w.bins is None else [w.bins])
        outputs.append(helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, shape))
    for name, dims in b.heads[:3]:
        outputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows if dims[0] == 1 else None, *dims[1:]])
        )
    graph = helper.make_graph(nodes, "network", b.inputs, outputs, initializer=b.weights)
    return pruned(helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)], ir_version=10))


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without nodes and weights that no output needs."""
    needed = {o.name for o in model.graph.output}
    keep = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            keep.append(node)
            needed |= set(node.input) | captured(node)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.node[:], out.graph.initializer[:], out.graph.input[:]
    out.graph.input.extend(v for v in model.graph.input if v.name in needed)
    out.graph.node.extend(reversed(keep))
    out.graph.initializer.extend(w for w in model.graph.initializer if w.name in needed)
    return out


def captured(node: onnx.NodeProto) -> set[str]:
    """What the graphs within a node read."""
    return {
        i
        for a in node.attribute
        if a.type == onnx.AttributeProto.GRAPH
        for n in a.g.node
        for i in (*n.input, *captured(n))
    }
