"""Writes ONNX nodes: shared constants, common subexpressions once, and each operator in the form its opset has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pulsify_onnx.algebra.facts import Shape
from pulsify_onnx.algebra.length import Length
from pulsify_onnx.algebra.plan import Attribute
from pulsify_onnx.arrays import Array, Const
from pulsify_onnx.model.edit import free_name, free_names
from pulsify_onnx.model.schema import axes_are_input

TO_END = 2**63 - 1

OWN = "pulsify/"
"""What names of nodes and tensors begin with that the source does not have."""


def served(node: str, what: str) -> str:
    """The name of a node that the source does not have: what of the source it serves, and what it is."""
    return f"{OWN}{node}/{what}"


def serves(name: str) -> tuple[str, ...]:
    """What of the source a node may serve, by its `name`: one of these, where a node or a tensor is called so."""
    own = (name.removeprefix(OWN).rpartition("/")[0],) if name.startswith(OWN) else ()
    first, _, number = name.rpartition("_")
    return (*own, *((first,) if number.isdecimal() else ()))


class Writer(ABC):
    """Writes the operators of a graph, and is told what is known of the rows of its tensors.

    What it is told matters to a writer for a batch only, whose rows are streams of their own; ``shared``: nodes for
    which they are not.
    """

    opset: int
    shared: dict[str, None]

    def name(self, wanted: str) -> str:
        """`wanted`, or a free name like it, for a tensor: those of the source keep theirs, which `trace` finds them
        by.
        """
        return self.names(wanted)[0]

    @abstractmethod
    def names(self, *wanted: str) -> list[str]:
        """`wanted`, or free names like them that end alike."""

    @abstractmethod
    def constant(self, array: Array | Const) -> ir.Value:
        """An initializer for `array`."""

    @abstractmethod
    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        node_name: str = "",
        rewire: Callable[[ir.Graph], ir.Graph] | None = None,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Outputs of an operator."""

    @abstractmethod
    def number(self, rows: ir.Value) -> ir.Value:
        """A vector with an entry per row as a number."""

    @abstractmethod
    def whole(self, value: ir.Value) -> ir.Value:
        """A tensor for what takes no number per row."""

    @abstractmethod
    def regrouped(
        self, value: ir.Value, shape: ir.Value, rank: int, axis: int, within: tuple[Length, Length]
    ) -> ir.Value:
        """`value` reshaped to a `shape` of `rank` dimensions, in which it has the batch on `axis`, merged with the
        axes `within`.
        """

    # rows

    @abstractmethod
    def settle(self, value: ir.Value, shape: Shape, static: bool) -> ir.Value:
        """Say what the shape of a wire's tensor is in a pulse; a `static` one without the batch in it is the same
        for all rows.
        """

    @abstractmethod
    def measure(self, value: ir.Value, shape: Shape) -> ir.Value:
        """Say what the shape of `value` is in a pulse."""

    @abstractmethod
    def sized(self, shape: ir.Value, sizes: Shape) -> ir.Value:
        """Say what the entries of a computed shape are."""

    @abstractmethod
    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """Sizes of the slower and the faster axis merged with the batch in a dimension of `size`, where that is
        known.
        """

    @abstractmethod
    def state(self, past: ir.Value, shape: Sequence[int | str], rank: int) -> ir.Value:
        """Say that `past` is a state of `shape`, which begins with the batch; one of fewer dimensions than it has is
        a value per row.
        """

    @abstractmethod
    def per_row(self, value: ir.Value) -> bool:
        """Whether a tensor that has no batch itself has a value per row."""

    @abstractmethod
    def remembered(self, value: ir.Value, shape: Sequence[int | str]) -> ir.Value:
        """`value` as a state of `shape`."""

    @abstractmethod
    def note(self) -> None:
        """The node at hand does something that rows share."""

    # forms of operators

    def ints(self, *values: int) -> ir.Value:
        """An int64 vector."""
        return self.constant(np.asarray(values, np.int64))

    def one(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The only output of an operator."""
        return self.op(op_type, *inputs, **attributes)[0]

    def unsqueeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`x` with dimensions of 1 at `axes`."""
        return self._along("Unsqueeze", x, axes)

    def squeeze(self, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        """`x` without its dimensions of 1 at `axes`."""
        return self._along("Squeeze", x, axes)

    def _along(self, op_type: str, x: ir.Value, axes: Sequence[int]) -> ir.Value:
        if axes_are_input(op_type, self.opset):
            return self.one(op_type, x, self.ints(*axes))
        return self.one(op_type, x, axes=list(axes))

    def picked(self, x: ir.Value, index: ir.Value, rank: int) -> ir.Value:
        """``x[row, index[row]]`` for every row; of `index`, `rank` dimensions are no rows (0 or 1)."""
        if self.opset >= 12:
            return self.one("GatherND", x, self.unsqueeze(index, [rank + 1]), batch_dims=1)
        shape = self.one("Shape", x)
        zero, one = (self.constant(np.asarray(k, np.int64)) for k in (0, 1))
        rows, count = (self.one("Gather", shape, k, axis=0) for k in (zero, one))
        first = self.one("Mul", self.one("Range", zero, rows, one), count)
        at = self.one("Add", index, self.unsqueeze(first, [1]) if rank else first)
        flat = self.one("Concat", self.ints(-1), self.slice(shape, 0, 2, TO_END), axis=0)
        return self.one("Gather", self.one("Reshape", x, flat), at, axis=0)

    def resized_apart(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        scales: Sequence[float] | None,
        rows: int,
        rank: int,
        **attributes: Any,
    ) -> ir.Value:
        """A Resize or Upsample by `scales` (None: to the sizes of its input 3) that keeps what axis `rows` of its
        `rank` has apart:
        as the second of four dimensions, or as the first of more.
        """
        assert inputs[0] is not None
        perm = [rows, *(k for k in range(rank) if k != rows)]
        more = [0, 2][: max(0, 4 - rank)]
        order: list[int | None] = [None, perm[0], None, *perm[1:]] if rank == 2 else [None, *perm] if more else [*perm]
        data = self.one("Transpose", inputs[0], perm=perm) if rows else inputs[0]
        data = self.unsqueeze(data, more) if more else data
        wide = [self.fenced(data) if rows else data, *inputs[1:]]
        if scales is None:
            wide[3] = self.one(
                "Gather",
                self.one("Concat", inputs[3], self.ints(1), axis=0),
                self.ints(*(rank if k is None else k for k in order)),
                axis=0,
            )
        elif len(inputs) > 1:
            wide[min(2, len(inputs) - 1)] = self.constant(
                np.asarray([1 if k is None else scales[k] for k in order], np.float32)
            )
        else:
            attributes["scales"] = [1.0 if k is None else scales[k] for k in order]
        made = self.one(op_type, *wide, **attributes)
        made = self.squeeze(made, more) if more else made
        return self.one("Transpose", made, perm=[perm.index(k) for k in range(rank)]) if rows else made

    def fenced(self, x: ir.Value) -> ir.Value:
        """`x` as it is, by two operators that onnxruntime moves no Transpose through."""
        return self.one("Reshape", self.one("Flatten", x, axis=1), self.one("Shape", x))

    def slice(self, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        """``x[start:end]`` along `axis`; negative bounds count from the end."""
        if start == 0 and end == TO_END:
            return x
        return self.one("Slice", x, self.ints(start), self.ints(end), self.ints(axis))


class Emitter(Writer):
    """A graph under construction. Equal operators on equal inputs are written once. All rows are one stream.

    `serving`: what of the source they are written for now.
    """

    def __init__(self, opset: int, reserved: set[str], serving: Callable[[], str]):
        self.opset, self.serving = opset, serving
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self.domains: set[str] = set()
        self._taken = set(reserved)
        self._node_names: set[str] = set()
        self._constants: dict[Const, ir.Value] = {}
        self._made: dict[Any, Sequence[ir.Value]] = {}
        self._count = 0
        self.any_pulse: Callable[[], ir.Value] | None = None
        """Of a graph for pulses of any size: a zero that is computed from the size of its pulse."""
        self.shared = {}

    def names(self, *wanted: str) -> list[str]:
        """`wanted`, or free names like them that end alike."""
        return free_names(wanted, self._taken)

    def constant(self, array: Array | Const) -> ir.Value:
        """An initializer for `array`."""
        key = array if isinstance(array, Const) else Const(array)
        if key not in self._constants:
            tensor = ir.tensor(key.array)
            value = ir.Value(
                name=self.name(f"pulsify/const_{len(self._constants)}"),
                const_value=tensor,
                shape=ir.Shape(key.array.shape),
                type=ir.TensorType(tensor.dtype),
            )
            self.initializers[value.name or ""] = value
            self._constants[key] = value
        return self._constants[key]

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        node_name: str = "",
        rewire: Callable[[ir.Graph], ir.Graph] | None = None,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Outputs of an operator."""
        old = self._older(op_type, inputs, attributes) if domain == "" else None
        if old is not None:
            return (old,)
        attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()}
        key = (
            op_type,
            domain,
            tuple(id(v) if v is not None else None for v in inputs),
            outputs,
            tuple(sorted(attributes.items(), key=lambda pair: pair[0])),
        )
        if key in self._made:
            return self._made[key]
        attrs = [_attribute(k, v, rewire) for k, v in attributes.items()]
        node = ir.Node(
            domain,
            op_type,
            inputs,
            attrs,
            num_outputs=outputs,
            name=free_name(node_name or served(self.serving(), f"{op_type}_{len(self.nodes)}"), self._node_names),
        )
        for out in node.outputs:
            out.name = self.name(f"pulsify/{self._count}")
            self._count += 1
        if domain:
            self.domains.add(domain)
        self.nodes.append(node)
        self._made[key] = node.outputs
        return node.outputs

    def number(self, rows: ir.Value) -> ir.Value:
        """Its first entry."""
        return self.one("Gather", rows, self.constant(np.asarray(0, np.int64)), axis=0)

    def whole(self, value: ir.Value) -> ir.Value:
        """Every tensor is."""
        return value

    def regrouped(
        self, value: ir.Value, shape: ir.Value, rank: int, axis: int, within: tuple[Length, Length]
    ) -> ir.Value:
        """A Reshape."""
        return self.one("Reshape", value, shape)

    def settle(self, value: ir.Value, shape: Shape, static: bool) -> ir.Value:
        """As it is."""
        return value

    def measure(self, value: ir.Value, shape: Shape) -> ir.Value:
        """As it is."""
        return value

    def sized(self, shape: ir.Value, sizes: Shape) -> ir.Value:
        """As it is."""
        return shape

    def order(self, value: ir.Value, size: Length) -> tuple[Length, Length] | None:
        """It is not known."""
        return None

    def state(self, past: ir.Value, shape: Sequence[int | str], rank: int) -> ir.Value:
        """As it is."""
        return past

    def per_row(self, value: ir.Value) -> bool:
        """None has."""
        return False

    def remembered(self, value: ir.Value, shape: Sequence[int | str]) -> ir.Value:
        """As it is."""
        return value

    def note(self) -> None:
        """There is but one stream."""

    def passed_on(self, value: ir.Value, what: str) -> ir.Value:
        """`value` under a name of its own."""
        node = ir.Node("", "Identity", [value], name=free_name(served(self.serving(), what), self._node_names))
        self.nodes.append(node)
        return node.outputs[0]

    def prune(self, results: set[ir.Value]) -> None:
        """Drop what was written for nothing."""
        kept = []
        for node in reversed(self.nodes):
            if any(v in results or v.uses() for v in node.outputs):
                kept.append(node)
            else:
                for k in range(len(node.inputs)):
                    node.replace_input_with(k, None)
        self.nodes = kept[::-1]

    def _older(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value | None:
        """Operators as opsets before 12 have them, where rules write the newer form."""
        if op_type == "Slice" and self.opset < 10 and len(inputs) > 1:
            names = ("starts", "ends", "axes", "steps")
            values = {
                n: v.const_value.numpy().tolist()
                for n, v in zip(names, inputs[1:])
                if v is not None and v.const_value is not None
            }
            if len(values) == len(inputs) - 1 and values.pop("steps", [1]) == [1] * len(values["starts"]):
                return self.one("Slice", inputs[0], **values)
            return self._picked_apart(inputs)
        if (
            op_type == "Slice"
            and self.opset == 10
            and self.any_pulse is not None
            and inputs[0] is not None
            and inputs[0].const_value is None
        ):
            # of constant bounds onnx infers a symbolic size to be as it was, and onnxruntime gives what has one size
            # one buffer
            x, start, end, *rest = inputs
            if end is not None and end.const_value is not None:
                return self.one("Slice", x, start, self.one("Add", end, self.any_pulse()), *rest)
        if op_type == "Range" and self.opset < 11:  # from 0, by 1
            ones = self.one(
                "ConstantOfShape", self.one("Reshape", inputs[1], self.ints(1)), value=ir.tensor(np.ones(1, np.int64))
            )
            return self.one("Reshape", self.one("NonZero", ones), self.ints(-1))
        if op_type in ("Min", "Max") and self.opset < 12 and len(inputs) == 2:
            a, b = inputs
            test = self.one("Less", a, b)
            return self.one("Where", test, a, b) if op_type == "Min" else self.one("Where", test, b, a)
        if (
            op_type == "Pad"
            and self.opset < 11
            and len(inputs) > 1
            and inputs[1] is not None
            and inputs[1].const_value is not None
        ):
            fill = (
                inputs[2].const_value.numpy().item()
                if len(inputs) > 2 and inputs[2] is not None and inputs[2].const_value is not None
                else 0.0
            )
            return self.one(
                "Pad", inputs[0], pads=inputs[1].const_value.numpy().tolist(), value=float(fill), **attributes
            )
        return None

    def _picked_apart(self, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """A Slice whose bounds are computed, or whose step is not 1, as opsets before 10 have it: what it takes is
        gathered, axis by axis.
        """
        x, bounds = inputs[0], inputs[1:]
        steps = (
            bounds[3].const_value.numpy().tolist()
            if len(bounds) > 3 and bounds[3] is not None and bounds[3].const_value is not None
            else None
        )
        axes = (
            bounds[2].const_value.numpy().tolist()
            if bounds[2] is not None and bounds[2].const_value is not None
            else []
        )
        for k, axis in enumerate(axes):
            step = steps[k] if steps else 1
            size = self.one("Gather", self.one("Shape", x), self.ints(axis), axis=0)
            start, end = (
                self._bound(self.one("Gather", bound, self.ints(k), axis=0) if len(axes) > 1 else bound, size, step < 0)
                for bound in bounds[:2]
            )
            length = self.one("Sub", end, start) if step > 0 else self.one("Sub", start, end)
            length = self.one("Max", length, self.ints(0))
            if abs(step) > 1:
                length = self.one("Div", self.one("Add", length, self.ints(abs(step) - 1)), self.ints(abs(step)))
            count = self.one(
                "Range", self.constant(np.asarray(0, np.int64)), length, self.constant(np.asarray(1, np.int64))
            )
            x = self.one(
                "Gather",
                x,
                self.one("Add", start, count if step == 1 else self.one("Mul", count, self.ints(step))),
                axis=axis,
            )
        assert x is not None
        return x

    def _bound(self, bound: ir.Value | None, size: ir.Value, backwards: bool) -> ir.Value:
        """A start or end of a Slice as an index from the start, within what there is."""
        assert bound is not None
        index = self.one("Where", self.one("Less", bound, self.ints(0)), self.one("Add", bound, size), bound)
        last = self.one("Sub", size, self.ints(1)) if backwards else size
        return self.one("Max", self.one("Min", index, last), self.ints(-1 if backwards else 0))


def _attribute(name: str, value: Any, rewire: Callable[[ir.Graph], ir.Graph] | None) -> ir.Attr:
    if isinstance(value, Attribute):
        kept = value.attr
        if kept.type == ir.AttributeType.GRAPH and rewire is not None:
            return ir.AttrGraph(name, rewire(kept.as_graph()))
        return kept
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(name, rewire(value) if rewire is not None else value)
    return ir.convenience.convert_attribute(name, list(value) if isinstance(value, tuple) else value)
