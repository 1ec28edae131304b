"""A graph that is being written: values with named axes, and operators as each opset spells them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHORT = tuple(range(1, 25))
PROBES = SHORT + tuple(range(60, 73))
"""Lengths of the base stream for which the frames of every value are followed: short ones, and usual ones."""

LAST = 2**63 - 1
DTYPES = {"float32": np.float32, "float16": np.float16, "float64": np.float64}
ODD_NAMES = (
    "valid_frames",
    "past_000_x",
    "present_000_x",
    "past_000_clock",
    "clock",
    "seen",
    "x_history",
    "past",
    "state",
    "T",
    "B",
    "batch",
    "pulse",
    "present_001_seen",
    "conv",
    "output",
    "y_0",
    "a b",
    "/x",
    "ünï",
    "x/T",
    "zeros",
    "one",
    "mask",
    "shape",
)


@dataclass(frozen=True)
class Value:
    """A tensor: its axes as letters (B rows, T frames, C and F features), the size of C and F, and its frames at
    each of `PROBES`.
    """

    name: str
    axes: str
    c: int
    frames: tuple[int, ...]
    f: int = 1

    @property
    def usual(self) -> tuple[int, ...]:
        """Frames at the usual lengths."""
        return self.frames[len(SHORT) :]

    def at(self, letter: str) -> int:
        return self.axes.index(letter)

    @property
    def t(self) -> int:
        return self.axes.index("T")

    def size(self, letter: str) -> int:
        return {"C": self.c, "F": self.f}[letter]


class Unwritable(Exception):
    """An idiom that does not fit here: the sentence goes on without it."""


@dataclass
class Graph:
    """Nodes, initializers and functions, written in the manner of one exporter."""

    rng: random.Random
    opset: int
    dtype: str = "float32"
    style: str = "torch"
    batch: int | str = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    as_inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    static: list[tuple[str, tuple[int | str, ...]]] = field(default_factory=list)
    coarse: bool = False
    without: tuple[str, ...] = ()
    scope: str = "net"
    count: int = 0

    # names and constants

    def name(self, kind: str) -> str:
        """A fresh name, as the exporter would give it."""
        self.count += 1
        n = self.count
        if self.style == "odd" and self.rng.random() < 0.5:
            free = [name for name in ODD_NAMES if name not in self.taken]
            if free:
                name = self.rng.choice(free)
                self.taken.add(name)
                return name
        name = {
            "torch": f"/{self.scope}/{kind}_{n}_output_0",
            "keras": f"model/{self.scope}/{kind.lower()}_{n}:0",
            "dynamo": f"val_{n}" if n % 3 else f"{kind.lower()}_{n}",
            "odd": str(n),
            "plain": f"{kind.lower()}{n}",
        }[self.style]
        self.taken.add(name)
        return name

    @property
    def np(self) -> Any:
        return DTYPES[self.dtype]

    def const(self, value: Any, dtype: Any = None) -> str:
        """A constant: an initializer, one that is a graph input too, or a Constant node."""
        array = np.asarray(value, dtype or self.np)
        name = self.name("Const")
        tensor = numpy_helper.from_array(array, name)
        draw = self.rng.random()
        if draw < 0.2:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            return name
        self.weights.append(tensor)
        if draw < 0.25:
            self.as_inputs.append(helper.make_tensor_value_info(name, tensor.data_type, array.shape))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        """Random weights, small enough that depth keeps the scale."""
        fan = max(int(np.prod(shape[1:])), 1)
        draw = np.random.default_rng(self.rng.randrange(2**31)).standard_normal(shape)
        return self.const(draw * gain / np.sqrt(fan))

    def bias(self, n: int) -> str:
        return self.const(np.random.default_rng(self.rng.randrange(2**31)).uniform(-0.5, 0.5, n))

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    # operators

    def op(self, kind: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        return self.ops(kind, *inputs, outs=1, domain=domain, **attrs)[0]

    def ops(
        self, kind: str, *inputs: str, outs: int = 1, domain: str = "", names: list[str] | None = None, **attrs: Any
    ) -> list[str]:
        out = names or [self.name(kind) for _ in range(outs)]
        label = {"odd": out[-1] if self.count % 2 else "", "dynamo": f"node_{kind}_{len(self.nodes)}"}.get(
            self.style, out[-1].replace("_output_0", "")
        )
        self.nodes.append(
            helper.make_node(
                kind, list(inputs), out, name=label, domain=domain, **{k: v for k, v in attrs.items() if v is not None}
            )
        )
        if domain and domain not in self.domains:
            self.domains[domain] = 1
        return out

    def need(self, opset: int) -> None:
        if self.opset < opset:
            raise Unwritable(f"needs opset {opset}")

    def unsqueeze(self, x: str, *axes: int) -> str:
        return (
            self.op("Unsqueeze", x, self.ints(*axes)) if self.opset >= 13 else self.op("Unsqueeze", x, axes=list(axes))
        )

    def squeeze(self, x: str, *axes: int) -> str:
        return self.op("Squeeze", x, self.ints(*axes)) if self.opset >= 13 else self.op("Squeeze", x, axes=list(axes))

    def slice(self, x: str, axis: int, start: int | str = 0, end: int | str = LAST, step: int = 1) -> str:
        """x[start:end:step] along an axis; the bounds may be computed, as one-element tensors."""
        if self.opset < 10:
            if step != 1 or isinstance(start, str) or isinstance(end, str):
                raise Unwritable("a slice of opset 9 has fixed bounds")
            return self.op("Slice", x, starts=[start], ends=[end], axes=[axis])
        first = start if isinstance(start, str) else self.ints(start)
        last = end if isinstance(end, str) else self.ints(end)
        more = [self.ints(step)] if step != 1 or self.chance(0.5) else []
        return self.op("Slice", x, first, last, self.ints(axis), *more)

    def pad(
        self, x: str, rank: int, axis: int, left: int, right: int, mode: str = "constant", value: float = 0.0
    ) -> str:
        pads = [0] * (2 * rank)
        pads[axis], pads[axis + rank] = left, right
        if self.opset < 11:
            return self.op("Pad", x, pads=pads, mode=mode, value=value)
        more = [self.const(np.array(value))] if mode == "constant" and (value or self.chance(0.5)) else []
        return self.op("Pad", x, self.ints(*pads), *more, mode=mode)

    def reduce(self, kind: str, x: str, *axes: int, keep: bool = True) -> str:
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            return self.op(kind, x, self.ints(*axes), keepdims=int(keep))
        return self.op(kind, x, axes=list(axes), keepdims=int(keep))

    def clip(self, x: str, low: float, high: float) -> str:
        if self.opset < 11:
            if self.dtype == "float64":
                raise Unwritable("Clip of doubles")
            return self.op("Clip", x, min=float(low), max=float(high))
        return self.op("Clip", x, self.const(low), self.const(high))

    def split(self, x: str, axis: int, *sizes: int) -> list[str]:
        if self.opset >= 13:
            return self.ops("Split", x, self.ints(*sizes), outs=len(sizes), axis=axis)
        return self.ops("Split", x, outs=len(sizes), axis=axis, split=list(sizes))

    def dim(self, x: str, axis: int, flat: bool = False) -> str:
        """The size of an axis, from a subgraph on the shape: a scalar, or one element."""
        if self.opset >= 15 and self.chance(0.4):
            one = self.op("Shape", x, start=axis, end=axis + 1)
            return one if flat else self.squeeze(one, 0)
        shape = self.op("Shape", x)
        if flat:
            return (
                self.op("Gather", shape, self.ints(axis), axis=0)
                if self.chance(0.5)
                else self.slice(shape, 0, axis, axis + 1)
            )
        return self.op("Gather", shape, self.const(axis, np.int64), axis=0)

    def float(self, x: str) -> str:
        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(self.np)))

    def reshape(self, x: str, *dims: int | str) -> str:
        """Reshape to a constant, or to a Concat of dimensions of which some are computed (names of one-element
        tensors).
        """
        if not any(isinstance(d, str) for d in dims):
            return self.op("Reshape", x, self.ints(*[int(d) for d in dims]))
        parts = [d if isinstance(d, str) else self.ints(d) for d in dims]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    # layouts

    def transpose(self, v: Value, axes: str) -> Value:
        if axes == v.axes:
            return v
        return replace(v, name=self.op("Transpose", v.name, perm=[v.axes.index(a) for a in axes]), axes=axes)

    def to(self, v: Value, axes: str) -> Value:
        """The same frames in another layout, by the Transposes, Reshapes and Unsqueezes that views of tensors
        become.
        """
        if sorted(axes) == sorted(v.axes):
            return self.transpose(v, axes)
        if "F" in v.axes and "F" not in axes:
            v = self.transpose(v, "BTCF" if axes == "BTC" else "BCFT")
            merged = v.c * v.f
            shape: list[int | str] = [0, 0, merged] if v.axes == "BTCF" else [0, merged, -1]
            if self.chance(0.3):
                rows, frames = self.dim(v.name, 0, flat=True), self.dim(v.name, v.t, flat=True)
                shape = [rows, frames, merged] if v.axes == "BTCF" else [rows, merged, frames]
            flat = Value(self.reshape(v.name, *shape), "BTC" if v.axes == "BTCF" else "BCT", merged, v.frames)
            return self.to(flat, axes)
        if "F" in axes and "F" not in v.axes:
            v = self.to(v, "BCT")
            return self.transpose(Value(self.unsqueeze(v.name, 1), "BCFT", 1, v.frames, f=v.c), axes)
        if v.axes == "BT":
            return self.to(Value(self.unsqueeze(v.name, 1), "BCT", 1, v.frames), axes)
        if axes == "BT":
            v = self.to(v, "BCT")
            if v.c > 1:
                v = replace(v, name=self.reduce("ReduceMean", v.name, 1), c=1)
            return Value(self.squeeze(v.name, 1), "BT", 1, v.frames)
        raise Unwritable(f"from {v.axes} to {axes}")

    def per_channel(self, v: Value, values: Any) -> str:
        """A constant of one number a channel, shaped to broadcast along the channels of `v`."""
        shape = [v.c if a == "C" else 1 for a in v.axes]
        while len(shape) > 1 and shape[0] == 1 and self.chance(0.7):
            shape = shape[1:]
        return self.const(np.asarray(values).reshape(shape))

    def finish(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        ir = 3 if self.opset < 9 else 7 if self.opset < 15 else 8 if self.opset < 19 else 10
        if ir < 4:  # there every initializer is an input
            known = {v.name for v in self.as_inputs}
            self.as_inputs += [
                helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in self.weights if w.name not in known
            ]
        graph = helper.make_graph(self.nodes, "main_graph", inputs + self.as_inputs, outputs, self.weights)
        imports = [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(
            graph,
            opset_imports=imports,
            functions=self.functions,
            producer_name={"keras": "tf2onnx"}.get(self.style, "pytorch"),
        )
        model.ir_version = 8 if self.functions and ir < 8 else ir
        return model


def element(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def windowed(
    frames: tuple[int, ...],
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    left: int = 0,
    right: int = 0,
    ceil: bool = False,
) -> tuple[int, ...]:
    """How many windows fit, at each probe."""
    out = []
    for n in frames:
        room = n + left + right - dilation * (kernel - 1) - 1
        count = -(-room // stride) + 1 if ceil else room // stride + 1
        if ceil and (count - 1) * stride >= n + left:
            count -= 1
        out.append(count)
    return tuple(out)


FLOAT = TensorProto.FLOAT
