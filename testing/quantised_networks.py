"""Random networks of quantised layers as exporters write them: QuantizeLinear and DequantizeLinear around every
operator.

onnxruntime turns them into integer arithmetic, so that a stream can be compared bit by bit.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from testing.builder import Builder, Invalid, Wire
from testing.networks import Layer, join

SCALES = (1 / 16, 0.0371, 1 / 32, 0.0213)
"""Steps of 8 bits; a mean of two frames has another one: half a step would be rounded as the order of the sum has
it.
"""


def _rounded(b: Builder, name: str, like: Wire | None = None, scales: tuple[float, ...] = SCALES) -> str:
    """`name` rounded to 8 bits, as another wire is where frames are only moved."""
    made = {n.output[0]: n for n in b.nodes}
    known = next((n for n in b.nodes if n.op_type == "QuantizeLinear"), None)
    if like is not None:
        scale, zero = made[like.name].input[1:]
    else:
        unsigned = (
            bool(b.chance(0.6))
            if known is None
            else next(w.data_type for w in b.weights if w.name == known.input[2]) == TensorProto.UINT8
        )
        scale = b.constant(np.float32(b.pick(*scales)))
        zero = b.constant(
            b.pick(np.uint8(128), np.uint8(128), np.uint8(113)) if unsigned else b.pick(np.int8(0), np.int8(-7))
        )
    return str(b.node("DequantizeLinear", b.node("QuantizeLinear", name, scale, zero), scale, zero))


def _input(b: Builder) -> Wire:
    """A quantised wire."""
    x = b.any((3,))
    made = {n.output[0]: n.op_type for n in b.nodes}
    if made.get(x.name) == "DequantizeLinear":
        return x
    if x.name in made:
        raise Invalid
    return b.wire(_rounded(b, x.name), x)


def _weights(b: Builder, *shape: int) -> str:
    scale, zero = b.constant(np.float32(b.pick(*SCALES))), b.constant(np.int8(0))
    return str(b.node("DequantizeLinear", b.constant(b.rng.integers(-20, 21, shape).astype(np.int8)), scale, zero))


def quantised_conv(b: Builder) -> None:
    """A convolution of 8 bits, with or without padding, stride and bias."""
    x = _input(b)
    k, s, d, out = b.pick(1, 2, 3, 5), b.pick(1, 1, 1, 2), b.pick(1, 1, 2), b.pick(1, 2, 4)
    span = (k - 1) * d + 1
    before, after = b.pick((0, 0), (span - 1, 0), ((span - 1) // 2, span // 2), (span // 2, 0))
    bias = [b.weight(out)] if b.chance(0.5) else []
    name = b.node(
        "Conv", x.name, _weights(b, out, x.channels, k), *bias, pads=[before, after], strides=[s], dilations=[d]
    )
    if b.chance(0.3):
        name = b.node("Relu", name)
    b.wire(
        _rounded(b, name),
        x,
        channels=out,
        lengths=b.grown((x.lengths + before + after - span) // s + 1),
        rate=x.rate / s,
    )


def quantised_up(b: Builder) -> None:
    """A transposed convolution, or nearest neighbours."""
    x = _input(b)
    if b.chance(0.5):
        name = b.node("ConvTranspose", x.name, _weights(b, x.channels, 2, 3), strides=[2], pads=[1, 0])
        b.wire(_rounded(b, name), x, channels=2, lengths=b.grown(x.lengths * 2), rate=x.rate * 2)
    else:
        scales = b.constant(np.asarray([1, 1, 2], np.float32))
        name = b.node(
            "Resize",
            x.name,
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        b.wire(_rounded(b, name, x), x, lengths=b.grown(x.lengths * 2), rate=x.rate * 2)


def quantised_pool(b: Builder) -> None:
    """A pool of quantised frames."""
    x = _input(b)
    k, before, after = b.pick(2, 3), b.pick(0, 1), b.pick(0, 1)
    kind = b.pick("MaxPool", "AveragePool")
    name = b.node(kind, x.name, kernel_shape=[k], pads=[before, after])
    b.wire(
        _rounded(b, name, x if kind == "MaxPool" else None, (0.0291,)),
        x,
        lengths=b.grown(x.lengths + before + after - k + 1),
    )


def quantised_pointwise(b: Builder) -> None:
    """An activation, a pad or a crop between roundings."""
    x = _input(b)
    kind = b.pick("Sigmoid", "LeakyRelu", "Pad", "Slice", "Softmax", "Concat", "Transpose")
    if kind == "Pad":
        b.wire(_rounded(b, b.node("Pad", x.name, b.ints(0, 0, 1, 0, 0, 1)), x), x, lengths=b.grown(x.lengths + 2))
    elif kind == "Slice":
        b.wire(
            _rounded(b, b.node("Slice", x.name, b.ints(1), b.ints(-1), b.ints(2)), x), x, lengths=b.grown(x.lengths - 2)
        )
    elif kind == "Concat":
        if x.channels > 4:
            raise Invalid
        b.wire(_rounded(b, b.node("Concat", x.name, x.name, axis=1), x), x, channels=2 * x.channels)
    elif kind == "Transpose":
        mixed = b.node(
            "MatMul", _rounded(b, b.node("Transpose", x.name, perm=[0, 2, 1]), x), _weights(b, x.channels, 2)
        )
        y = b.wire(_rounded(b, mixed), x, channels=2)
        del b.wires[-1]
        b.wire(_rounded(b, b.node("Transpose", y.name, perm=[0, 2, 1]), y), x, channels=2)
    else:
        b.wire(_rounded(b, b.node(kind, x.name, **({"axis": 1} if kind == "Softmax" else {}))), x)


def quantised_join(b: Builder) -> None:
    """Two quantised wires that meet."""
    _input(b)
    join(b)
    b.wire(_rounded(b, b.wires[-1].name), b.wires[-1])


QUANTISED: tuple[tuple[Layer, float], ...] = (
    (quantised_conv, 4),
    (quantised_up, 1),
    (quantised_pool, 1),
    (quantised_pointwise, 1.5),
    (quantised_join, 1.5),
)

EXACT = frozenset(getattr(layer, "__name__", "") for layer, _ in QUANTISED)
"""Networks of nothing else are compared bit by bit."""
