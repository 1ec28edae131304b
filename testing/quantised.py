"""Random networks of whole numbers: every tensor is quantised and dequantised around every operator, as quantisers
write them.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TYPES = {"uint8": np.uint8, "int8": np.int8, "uint16": np.uint16, "int16": np.int16}


@dataclass(frozen=True)
class Wire:
    """Integers [1, channels, T] with their scale and zero point, by name; `read` is what one DequantizeLinear makes
    of them.
    """

    name: str
    channels: int
    scale: str
    zero: str
    read: str


@dataclass
class Quantised:
    """Draws one network from a seed; `kind` is the type of its activations."""

    rng: np.random.Generator
    kind: str = "uint8"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    shared: bool = False
    count: int = 0

    def pick(self, *options: Any) -> Any:
        """One of `options`."""
        return options[int(self.rng.integers(len(options)))]

    def constant(self, value: Any) -> str:
        """An initializer."""
        self.count += 1
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{self.count}"))
        return f"c{self.count}"

    def node(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node; the name of its output."""
        self.count += 1
        self.nodes.append(
            helper.make_node(
                op_type, list(inputs), [f"t{self.count}"], name=f"{op_type}_{self.count}", domain=domain, **attributes
            )
        )
        return f"t{self.count}"

    @property
    def domain(self) -> str:
        """Of the operators that quantise: those of 16 bits are onnxruntime's own."""
        return "com.microsoft" if self.kind.endswith("16") else ""

    def params(self, scale: float) -> tuple[str, str]:
        """A scale and a zero point, of the sort that calibration gives."""
        info = np.iinfo(TYPES[self.kind])
        wide = (int(info.max) - int(info.min)) // 255
        zero = int(info.min) + int(self.pick(0, 128, int(self.rng.integers(40, 200)))) * wide
        return self.constant(np.float32(scale * self.rng.uniform(0.8, 1.25) / wide)), self.constant(
            TYPES[self.kind](zero)
        )

    def quantise(self, name: str, channels: int, scale: float = 0.031, like: Wire | None = None) -> Wire:
        """The integers of a float tensor, as a wire; of the scale and zero point of another one where told."""
        params = (like.scale, like.zero) if like is not None else self.params(scale)
        made = self.node("QuantizeLinear", name, *params, domain=self.domain)
        self.wires.append(
            Wire(made, channels, *params, self.node("DequantizeLinear", made, *params, domain=self.domain))
        )
        return self.wires[-1]

    def read(self, x: Wire) -> str:
        """A dequantised wire, of a DequantizeLinear that is shared or its own."""
        return x.read if self.shared else self.node("DequantizeLinear", x.name, x.scale, x.zero, domain=self.domain)

    def any(self) -> Wire:
        """A wire, mostly a late one."""
        return self.wires[max(0, len(self.wires) - int(self.rng.geometric(0.5)))]

    def weight(self, *shape: int) -> str:
        """Quantised weights, a scale per channel or one for all."""
        per = len(shape) > 2 and self.pick(True, False)
        scale = self.rng.uniform(0.004, 0.012, shape[0] if per else ()).astype(np.float32)
        values = self.rng.integers(-90, 100, shape).astype(np.int8)
        zero = np.zeros(scale.shape, np.int8)
        return self.node(
            "DequantizeLinear",
            self.constant(values),
            self.constant(scale),
            self.constant(zero),
            **({"axis": 0} if per else {}),
        )

    def padded(self, k: int, d: int) -> list[int]:
        """Pads that keep the length: causal, on both sides, or ahead."""
        total = (k - 1) * d
        before = self.pick(total, total, total // 2, 0)
        return [before, total - before]


def conv(b: Quantised) -> None:
    """A convolution, with a Relu now and then."""
    x, k, d = b.any(), b.pick(1, 2, 3, 3, 5), b.pick(1, 1, 2)
    group = b.pick(1, 1, x.channels)
    out = x.channels if group > 1 else int(b.rng.integers(3, 7))
    w = b.weight(out, x.channels // group, k)
    y = b.node("Conv", b.read(x), w, pads=b.padded(k, d), dilations=[d], group=group)
    b.quantise(b.node("Relu", y) if b.pick(True, False) else y, out)


def add(b: Quantised) -> None:
    """A sum or a product of two wires, which may be late by other numbers of frames."""
    x, y = b.any(), b.wires[int(b.rng.integers(len(b.wires)))]
    if x.channels == y.channels:
        b.quantise(b.node(b.pick("Add", "Add", "Mul"), b.read(x), b.read(y)), x.channels, 0.04)


def concat(b: Quantised) -> None:
    """Channels of two wires side by side."""
    x, y = b.any(), b.wires[int(b.rng.integers(len(b.wires)))]
    if x.channels + y.channels < 12:
        b.quantise(b.node("Concat", b.read(x), b.read(y), axis=1), x.channels + y.channels)


def max_pool(b: Quantised) -> None:
    """The largest of some frames."""
    x, k = b.any(), b.pick(2, 3)
    b.quantise(b.node("MaxPool", b.read(x), kernel_shape=[k], pads=b.padded(k, 1)), x.channels, like=b.pick(x, None))


def average(b: Quantised) -> None:
    """The mean of some frames, padded by an operator of its own."""
    x, k = b.any(), b.pick(2, 3)
    pads = b.padded(k, 1)
    full = b.node("Pad", b.read(x), b.constant(np.array([0, 0, pads[0], 0, 0, pads[1]])))
    y = b.quantise(full, x.channels, like=x)
    b.wires.remove(y)
    b.quantise(b.node("AveragePool", b.read(y), kernel_shape=[k]), x.channels)


def pad(b: Quantised) -> None:
    """Frames of a constant or of the stream itself before and after, then a convolution that takes them all."""
    x, k = b.any(), b.pick(2, 3)
    before = b.pick(k - 1, 0)
    mode = b.pick("constant", "constant", "reflect", "edge")
    if mode != "constant":
        before = k - 1
    value = [b.constant(np.float32(b.pick(0, 0.5)))] if mode == "constant" else []
    full = b.quantise(
        b.node("Pad", b.read(x), b.constant(np.array([0, 0, before, 0, 0, k - 1 - before])), *value, mode=mode),
        x.channels,
        like=x,
    )
    b.wires.remove(full)
    b.quantise(b.node("Conv", b.read(full), b.weight(4, x.channels, k)), 4)


def matmul(b: Quantised) -> None:
    """Features mixed with time in the middle."""
    x, out = b.any(), int(b.rng.integers(3, 7))
    turned = b.quantise(b.node("Transpose", b.read(x), perm=[0, 2, 1]), x.channels, like=x)
    made = b.quantise(b.node("MatMul", b.read(turned), b.weight(x.channels, out)), out)
    b.wires = [w for w in b.wires if w not in (turned, made)]
    b.quantise(b.node("Transpose", b.read(made), perm=[0, 2, 1]), out, like=made)


def activation(b: Quantised) -> None:
    """One value at a time."""
    x = b.any()
    b.quantise(b.node(b.pick("Sigmoid", "LeakyRelu", "Tanh"), b.read(x)), x.channels, 0.008)


def crop(b: Quantised) -> None:
    """The frames of before, by a slice, beside a convolution that sees frames ahead."""
    x = b.any()
    full = b.quantise(b.node("Pad", b.read(x), b.constant(np.array([0, 0, 2, 0, 0, 0]))), x.channels, like=x)
    cut = b.quantise(
        b.node("Slice", b.read(full), b.constant(np.array([0])), b.constant(np.array([-2])), b.constant(np.array([2]))),
        x.channels,
        like=x,
    )
    b.wires = [w for w in b.wires if w != full]
    assert cut in b.wires


LAYERS: tuple[Callable[[Quantised], None], ...] = (
    conv,
    conv,
    conv,
    add,
    add,
    concat,
    max_pool,
    average,
    pad,
    matmul,
    activation,
    crop,
)


def network(seed: int, layers: int = 6, kind: str = "uint8", floats: bool = True) -> onnx.ModelProto:
    """A random network [1, 4, T] -> [1, C, T] of about so many layers; with `floats`, what leaves it is dequantised."""
    b = Quantised(np.random.default_rng(seed), kind)
    b.shared = bool(b.pick(True, False))
    b.quantise("x", 4)
    for _ in range(layers):
        b.pick(*LAYERS)(b)
    y = b.wires[-1]
    elem = TensorProto.FLOAT if floats else getattr(TensorProto, kind.upper())
    b.nodes.append(helper.make_node("Identity", [y.read if floats else y.name], ["y"]))
    graph = helper.make_graph(
        b.nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, "T"])],
        [helper.make_tensor_value_info("y", elem, [1, y.channels, "U"])],
        b.weights,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return pruned(helper.make_model(graph, ir_version=8, opset_imports=imports))


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without nodes and weights that no output needs."""
    wanted = {o.name for o in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    del model.graph.node[:]
    model.graph.node.extend(kept[::-1])
    weights = [w for w in model.graph.initializer if w.name in wanted]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model


def optimised(model: onnx.ModelProto) -> Counter[str]:
    """How many operators of each kind onnxruntime makes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = os.fspath(path)
        options.log_severity_level = 4
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(n.op_type for n in onnx.load(path).graph.node)


def integer_kernels(model: onnx.ModelProto) -> Counter[str]:
    """How many operators of each kind run on integers."""
    return Counter({k: n for k, n in optimised(model).items() if k.startswith(("QLinear", "QGemm", "MatMulInteger"))})
