"""Convolutional blocks as torch, keras and tf2onnx write them. Each takes and gives a value; those of `SAME` keep
the frames.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .graph import Graph, Unwritable, Value, windowed


def activation(g: Graph, v: Value) -> Value:
    """One of the activations, whole or as exporters take it apart."""
    x = v.name
    kinds = [
        "Relu",
        "LeakyRelu",
        "Tanh",
        "Sigmoid",
        "Elu",
        "Softplus",
        "silu",
        "prelu",
        "relu6",
        "gelu",
        "mish",
        "snake",
        "hswish",
        "Selu",
        "tanh_gelu",
    ]
    if g.dtype != "float32":
        kinds = ["Relu", "Tanh", "Sigmoid", "silu"]
    kind = g.rng.choice(kinds)
    if kind == "silu":
        out = g.op("Mul", x, g.op("Sigmoid", x))
    elif kind == "prelu":
        out = g.op("PRelu", x, g.per_channel(v, np.linspace(0.1, 0.4, v.c)))
    elif kind == "relu6":
        out = g.clip(x, 0, 6)
    elif kind == "gelu":
        g.need(9)
        out = g.op("Gelu", x, approximate="tanh") if g.opset >= 20 and g.chance(0.5) else _erf_gelu(g, x)
    elif kind == "tanh_gelu":
        cube = g.op("Mul", g.op("Pow", x, g.const(3.0)), g.const(0.044715))
        out = g.op(
            "Mul",
            g.op("Mul", x, g.const(0.5)),
            g.op("Add", g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.const(0.797884))), g.const(1.0)),
        )
    elif kind == "mish":
        out = g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))
    elif kind == "snake":
        alpha = np.linspace(0.5, 1.5, v.c)
        wave = g.op("Pow", g.op("Sin", g.op("Mul", x, g.per_channel(v, alpha))), g.const(2.0))
        out = g.op("Add", x, g.op("Mul", wave, g.per_channel(v, 1 / alpha)))
    elif kind == "hswish":
        out = (
            g.op("HardSwish", x)
            if g.opset >= 14 and g.chance(0.5)
            else g.op("Div", g.op("Mul", x, g.clip(g.op("Add", x, g.const(3.0)), 0, 6)), g.const(6.0))
        )
    else:
        out = g.op(kind, x)
    return replace(v, name=out)


def _erf_gelu(g: Graph, x: str) -> str:
    half = g.op("Add", g.op("Erf", g.op("Div", x, g.const(np.sqrt(2.0)))), g.const(1.0))
    return g.op("Mul", g.op("Mul", x, half), g.const(0.5))


def batch_norm(g: Graph, v: Value) -> Value:
    if g.dtype != "float32":
        return v
    v = g.to(v, "BC" + v.axes.replace("B", "").replace("C", ""))
    rng = np.random.default_rng(g.rng.randrange(2**31))
    stats = [rng.uniform(0.5, 1.5, v.c), rng.normal(size=v.c), rng.normal(size=v.c), rng.uniform(0.5, 2, v.c)]
    return replace(v, name=g.op("BatchNormalization", v.name, *[g.const(s) for s in stats], epsilon=1e-3))


def conv1d(
    g: Graph,
    v: Value,
    out: int = 0,
    kernel: int = 0,
    stride: int = 1,
    dilation: int = 1,
    pads: tuple[int, int] | str = (0, 0),
    groups: int = 1,
) -> Value:
    """Conv along time of [B, C, T], with explicit pads or auto_pad."""
    v = g.to(v, "BCT")
    out = out or v.c
    weight = g.weight(out, v.c // groups, kernel)
    args = [v.name, weight] + ([g.bias(out)] if g.chance(0.8) else [])
    common: dict[str, Any] = {
        "dilations": [dilation] if dilation > 1 or g.chance(0.5) else None,
        "group": groups,
        "kernel_shape": [kernel] if g.chance(0.7) else None,
    }
    if isinstance(pads, str):
        name = g.op("Conv", *args, auto_pad=pads, strides=[stride], **common)
        frames = tuple(-(-n // stride) for n in v.frames)
    else:
        name = g.op("Conv", *args, pads=list(pads), strides=[stride], **common)
        frames = windowed(v.frames, kernel, stride, dilation, *pads)
    return Value(name, "BCT", out, frames)


def conv_bn_act(g: Graph, v: Value) -> Value:
    """Conv with torch's padding (k // 2), its norm and activation."""
    k = g.rng.choice((1, 3, 5, 4))
    d = g.rng.choice((1, 1, 2))
    return activation(
        g,
        batch_norm(
            g, conv1d(g, v, g.rng.randint(1, 5), k, dilation=d, pads=((k - 1) * d // 2, (k - 1) * d - (k - 1) * d // 2))
        ),
    )


def same_conv(g: Graph, v: Value) -> Value:
    """auto_pad, as tf2onnx leaves it where strides are 1."""
    return activation(
        g, conv1d(g, v, g.rng.randint(1, 5), g.rng.randint(1, 5), pads=g.rng.choice(("SAME_UPPER", "SAME_LOWER")))
    )


def strided(g: Graph, v: Value) -> Value:
    """A down-sampling convolution: torch pads, none, or auto_pad."""
    k, s = g.rng.randint(1, 5), g.rng.choice((2, 2, 3, 4))
    pads = g.rng.choice(((k // 2, k // 2), (0, 0), (k - 1, 0), (max(k - s, 0), 0), "SAME_UPPER", "SAME_LOWER", "VALID"))
    if pads == "VALID":
        return replace(conv1d(g, v, g.rng.randint(2, 5), k, s, pads="VALID"), frames=windowed(v.frames, k, s))
    return activation(g, conv1d(g, v, g.rng.randint(2, 5), k, s, pads=pads))


def causal_conv(g: Graph, v: Value) -> Value:
    """Pad at the left, then a convolution without padding; or padding on both sides and the end chomped."""
    v = g.to(v, "BCT")
    k, d = g.rng.randint(2, 4), g.rng.choice((1, 2, 3))
    span = (k - 1) * d
    if g.chance(0.3):
        wide = conv1d(g, v, v.c, k, dilation=d, pads=(span, span))
        return activation(g, replace(wide, name=g.slice(wide.name, 2, 0, -span), frames=v.frames))
    mode = "edge" if g.chance(0.25) else "constant"
    if g.chance(0.2):
        zeros = g.const(np.zeros((1, v.c, span)))
        if g.batch != 1:
            raise Unwritable("zeros of a row")
        padded = g.op("Concat", zeros, v.name, axis=2)
    else:
        padded = g.pad(v.name, 3, 2, span, 0, mode)
    return activation(
        g,
        conv1d(
            g, replace(v, name=padded, frames=tuple(n + span for n in v.frames)), g.rng.randint(1, 5), k, dilation=d
        ),
    )


def separable(g: Graph, v: Value) -> Value:
    v = g.to(v, "BCT")
    k = g.rng.choice((3, 5))
    deep = activation(
        g, batch_norm(g, conv1d(g, v, v.c, k, pads=g.rng.choice(((k // 2, k // 2), "SAME_UPPER")), groups=v.c))
    )
    return activation(g, batch_norm(g, conv1d(g, deep, g.rng.randint(1, 5), 1)))


def gated_tcn(g: Graph, v: Value) -> Value:
    """WaveNet's layer: tanh times sigmoid of dilated convolutions, a 1x1 and the residual."""
    v = g.to(v, "BCT")
    k, d = 2 + g.rng.randrange(2), g.rng.choice((1, 2, 4))
    span = (k - 1) * d
    padded = replace(v, name=g.pad(v.name, 3, 2, span, 0), frames=tuple(n + span for n in v.frames))
    if g.chance(0.5):
        both = conv1d(g, padded, 2 * v.c, k, dilation=d)
        a, b = g.split(both.name, 1, v.c, v.c)
    else:
        a, b = (conv1d(g, padded, v.c, k, dilation=d).name for _ in range(2))
    gate = g.op("Mul", g.op("Tanh", a), g.op("Sigmoid", b))
    mixed = conv1d(g, replace(v, name=gate), v.c, 1)
    return replace(v, name=g.op("Add", mixed.name, v.name) if g.chance(0.5) else g.op("Add", v.name, mixed.name))


def cropped_residual(g: Graph, v: Value) -> Value:
    """A convolution without padding, beside the input cropped to it: centred, causal, or by the shape of the result."""
    v = g.to(v, "BCT")
    k, d = g.rng.randint(2, 5), g.rng.choice((1, 1, 2))
    y = activation(g, conv1d(g, v, v.c, k, dilation=d))
    lost = (k - 1) * d
    how = g.rng.randrange(4)
    if how == 0:
        skip = g.slice(v.name, 2, lost // 2, -(lost - lost // 2) if lost - lost // 2 else 2**31 - 1)
    elif how == 1:
        skip = g.slice(v.name, 2, lost)
    elif how == 2:
        skip = g.slice(v.name, 2, g.op("Neg", g.dim(y.name, 2, flat=True)))
    else:
        skip = g.slice(v.name, 2, 0, g.dim(y.name, 2, flat=True))
    return replace(y, name=g.op("Add", y.name, skip))


def pool(g: Graph, v: Value) -> Value:
    """Max and average pools with every flag they have."""
    v = g.to(v, "BCT")
    k, s = g.rng.randint(2, 4), g.rng.randint(1, 3)
    left, right = g.rng.choice(((0, 0), (k // 2, k // 2), (k - 1, 0), (0, k - 1)))
    kind = g.rng.choice(("MaxPool", "AveragePool"))
    ceil = g.opset >= 10 and g.chance(0.3)
    attrs: dict[str, Any] = {
        "kernel_shape": [k],
        "strides": [s],
        "pads": [left, right],
        "ceil_mode": 1 if ceil else None,
    }
    if kind == "AveragePool" and g.chance(0.5):
        attrs["count_include_pad"] = 1
    if g.chance(0.2):
        attrs = {"kernel_shape": [k], "strides": [s], "auto_pad": g.rng.choice(("SAME_UPPER", "SAME_LOWER"))}
        return replace(v, name=g.op(kind, v.name, **attrs), frames=tuple(-(-n // s) for n in v.frames))
    return replace(v, name=g.op(kind, v.name, **attrs), frames=windowed(v.frames, k, s, 1, left, right, ceil))


def transposed(g: Graph, v: Value) -> Value:
    """An up-sampling ConvTranspose, cropped as vocoders crop it or not at all."""
    v = g.to(v, "BCT")
    s = g.rng.choice((2, 2, 3))
    k = g.rng.choice((s, 2 * s, s + 1, 2 * s + 1))
    out = g.rng.randint(1, 4)
    full = tuple((n - 1) * s + k for n in v.frames)
    args = [v.name, g.weight(v.c, out, k)] + ([g.bias(out)] if g.chance(0.7) else [])
    how = g.rng.randrange(4)
    if how == 0 and k > s:
        p, extra = (k - s) // 2, g.rng.randrange(2)
        name = g.op("ConvTranspose", *args, strides=[s], pads=[p, p], output_padding=[extra])
        return activation(g, Value(name, "BCT", out, tuple(n - 2 * p + extra for n in full)))
    if how == 1:
        name = g.op("ConvTranspose", *args, strides=[s], auto_pad=g.rng.choice(("SAME_UPPER", "SAME_LOWER")))
        return activation(g, Value(name, "BCT", out, tuple(n * s for n in v.frames)))
    name = g.op("ConvTranspose", *args, strides=[s])
    if how == 2 and k > s:
        return activation(g, Value(g.slice(name, 2, 0, s - k), "BCT", out, tuple(n * s for n in v.frames)))
    return activation(g, Value(name, "BCT", out, full))


def conv2d(g: Graph, v: Value) -> Value:
    """A layer of a 2-D net over time and features, time on either spatial axis."""
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    first = v.axes == "BCTF"
    kt, kf, sf = g.rng.randint(1, 3), g.rng.randint(1, min(3, v.f)), g.rng.choice((1, 1, 2))
    out = g.rng.randint(1, 3)
    left, right = g.rng.choice(((kt - 1, 0), (kt // 2, (kt - 1) // 2), (0, 0)))
    side = kf // 2 if v.f + 2 * (kf // 2) >= kf else 0

    def both(t: int, f: int) -> list[int]:
        return [t, f] if first else [f, t]

    name = v.name
    if left and g.chance(0.5):
        name = g.pad(name, 4, v.t, left, right)
        inner = tuple(n + left + right for n in v.frames)
        left = right = 0
    else:
        inner = v.frames
    weight = g.weight(out, v.c, *both(kt, kf))
    y = g.op("Conv", name, weight, g.bias(out), strides=both(1, sf), pads=both(left, side) + both(right, side))
    f = (v.f + 2 * side - kf) // sf + 1
    return activation(g, batch_norm(g, Value(y, v.axes, out, windowed(inner, kt, 1, 1, left, right), f=f)))


def pool2d(g: Graph, v: Value) -> Value:
    """A pool over the features of a 2-D net, with and without ceil_mode."""
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    if v.f < 2:
        raise Unwritable("one feature")
    first = v.axes == "BCTF"
    ceil = g.opset >= 10 and g.chance(0.4)
    attrs: dict[str, Any] = {
        "kernel_shape": [1, 2] if first else [2, 1],
        "strides": [1, 2] if first else [2, 1],
        "ceil_mode": int(ceil) if g.opset >= 10 else None,
    }
    name = g.op(g.rng.choice(("MaxPool", "AveragePool")), v.name, **attrs)
    return replace(v, name=name, f=-(-v.f // 2) if ceil else v.f // 2)


def fixed_kernel_up2d(g: Graph, v: Value) -> Value:
    """ConvTranspose over features, causal in time by a crop."""
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    first = v.axes == "BCTF"
    kt, out = g.rng.randint(1, 2), g.rng.randint(1, 2)
    weight = g.weight(v.c, out, *((kt, 2) if first else (2, kt)))
    name = g.op("ConvTranspose", v.name, weight, strides=[1, 2] if first else [2, 1])
    frames = tuple(n + kt - 1 for n in v.frames)
    if kt > 1:
        name, frames = g.slice(name, v.t, 0, 1 - kt), v.frames
    return Value(name, v.axes, out, frames, f=v.f * 2)
