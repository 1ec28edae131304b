"""Nets over time and features together, and whatever mixes or mistakes rows, borders and shares of a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .convs import activation, batch_norm, conv1d
from .graph import LAST, Graph, Unwritable, Value, windowed


def pool_plane(g: Graph, v: Value) -> Value:
    """A pool over both axes of a plane, with pads, ceil_mode and dilations on either."""
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    if v.f < 2:
        raise Unwritable("one feature")
    k, s = (g.rng.randint(1, 3), g.rng.randint(1, min(3, v.f))), (g.rng.choice((1, 1, 2)), g.rng.randint(1, 3))
    left = [g.rng.randint(0, k[i] - 1) for i in range(2)]
    right = [g.rng.randint(0, k[i] - 1) for i in range(2)]
    ceil = g.opset >= 10 and g.chance(0.5)
    kind = g.rng.choice(("MaxPool", "AveragePool"))

    def order(t: int, f: int) -> list[int]:
        return [t, f] if v.axes == "BCTF" else [f, t]

    attrs: dict[str, Any] = {
        "kernel_shape": order(*k),
        "strides": order(*s),
        "pads": order(left[0], left[1]) + order(right[0], right[1]),
    }
    attrs["ceil_mode"] = 1 if ceil else None
    if kind == "AveragePool" and g.chance(0.3):
        attrs["count_include_pad"] = 1
    f = windowed((v.f,), k[1], s[1], 1, left[1], right[1], ceil)[0]
    if f < 1:
        raise Unwritable("no feature left")
    name = g.op(kind, v.name, **attrs)
    return replace(v, name=name, frames=windowed(v.frames, k[0], s[0], 1, left[0], right[0], ceil), f=f)


def resize_plane(g: Graph, v: Value) -> Value:
    """interpolate(scale_factor=(..)) of a plane: time, features or both."""
    g.need(11)
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    t, f = g.rng.choice(((1, 2), (2, 1), (2, 2)))
    scale = [1.0, 1.0, t, f] if v.axes == "BCTF" else [1.0, 1.0, f, t]
    mode = g.rng.choice(("nearest", "linear", "linear", "cubic"))
    attrs: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": g.rng.choice(("half_pixel", "asymmetric", "pytorch_half_pixel")),
    }
    if mode == "nearest":
        attrs["nearest_mode"] = g.rng.choice(("floor", "round_prefer_floor"))
    name = g.op("Resize", v.name, g.const([], np.float32), g.const(scale, np.float32), **attrs)
    return replace(v, name=name, frames=tuple(n * t for n in v.frames), f=v.f * f)


def resize_flat(g: Graph, v: Value) -> Value:
    """A Resize of rank 2: rows and frames, nothing else."""
    g.need(11)
    v = g.to(v, "BT")
    r = g.rng.choice((2, 3))
    mode = g.rng.choice(("nearest", "linear"))
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": g.rng.choice(("half_pixel", "asymmetric"))}
    name = g.op("Resize", v.name, g.const([], np.float32), g.const([1.0, r], np.float32), **attrs)
    return replace(v, name=name, frames=tuple(n * r for n in v.frames))


def plane_unet(g: Graph, v: Value) -> Value:
    """A speech enhancer's U-Net: strides over features, causal in time, up by ConvTranspose with the skip beside it."""
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    if v.f < 3:
        raise Unwritable("too few features")
    kt = g.rng.randint(1, 2)

    def order(t: int, f: int) -> list[int]:
        return [t, f] if v.axes == "BCTF" else [f, t]

    padded = g.pad(v.name, 4, v.t, kt - 1, 0) if kt > 1 else v.name
    down = g.op("Conv", padded, g.weight(2, v.c, *order(kt, 3)), g.bias(2), strides=order(1, 2))
    low = activation(g, batch_norm(g, Value(down, v.axes, 2, v.frames, f=(v.f - 3) // 2 + 1)))
    up = g.op(
        "ConvTranspose",
        low.name,
        g.weight(2, v.c, *order(kt, 3)),
        strides=order(1, 2),
        output_padding=order(0, 1 - v.f % 2),
    )
    if kt > 1:
        up = g.slice(up, v.t, 0, 1 - kt)
    if g.chance(0.5):
        return replace(v, name=g.op("Concat", up, v.name, axis=1), c=2 * v.c)
    return replace(v, name=g.op("Mul", v.name, g.op("Sigmoid", up)))


def depth_to_space(g: Graph, v: Value) -> Value:
    """Channels to a plane twice as wide and long; or the other way."""
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    if g.chance(0.4):
        if v.f % 2 or any(n % 2 for n in v.usual):
            raise Unwritable("odd")
        return replace(
            v,
            name=g.op("SpaceToDepth", v.name, blocksize=2),
            c=4 * v.c,
            f=v.f // 2,
            frames=tuple(n // 2 for n in v.frames),
        )
    wide = g.op("Conv", v.name, g.weight(4, v.c, 1, 1), g.bias(4))
    name = g.op("DepthToSpace", wide, blocksize=2, mode=g.rng.choice(("DCR", "CRD")) if g.opset >= 11 else None)
    return replace(v, name=name, c=1, f=2 * v.f, frames=tuple(2 * n for n in v.frames))


def rows_mixed(g: Graph, v: Value) -> Value:
    """What makes rows of a batch depend on each other: a mean, a softmax, a running sum or a shift over them."""
    v = g.to(v, g.rng.choice(("BCT", "BTC")))
    how = g.rng.randrange(4)
    if how == 0:
        return replace(v, name=g.op("Sub", v.name, g.reduce("ReduceMean", v.name, 0)))
    if how == 1 and g.opset >= 13:
        return replace(v, name=g.op("Softmax", v.name, axis=0))
    if how == 2 and g.opset >= 11 and g.dtype != "float16":
        return replace(v, name=g.op("CumSum", v.name, g.const(0, np.int64)))
    name = g.slice(g.pad(v.name, 3, 0, 1, 0), 0, 0, -1)
    return replace(v, name=g.op("Add", v.name, name))


def reflect_conv(g: Graph, v: Value) -> Value:
    """A convolution behind reflected or repeated edges, before one or on both sides."""
    v = g.to(v, "BCT")
    k, d = g.rng.randint(2, 4), g.rng.choice((1, 2))
    left = g.rng.choice(((k - 1) * d, (k - 1) * d // 2))
    right = (k - 1) * d - left
    padded = g.pad(v.name, 3, 2, left, right, g.rng.choice(("reflect", "reflect", "edge")))
    return activation(
        g, conv1d(g, replace(v, name=padded, frames=tuple(n + left + right for n in v.frames)), v.c, k, dilation=d)
    )


def same_any(g: Graph, v: Value) -> Value:
    """auto_pad in every company: pools, dilations, strides wider than the kernel, ConvTranspose."""
    v = g.to(v, "BCT")
    k, s = g.rng.randint(1, 4), g.rng.choice((1, 1, 1, 2, 3))
    auto = g.rng.choice(("SAME_UPPER", "SAME_LOWER"))
    frames = tuple(-(-n // s) for n in v.frames)
    how = g.rng.randrange(4)
    if how == 0:
        return conv1d(g, v, g.rng.randint(1, 4), k, s, dilation=g.rng.choice((1, 2)), pads=auto)
    if how == 1 and g.opset >= 10:
        return replace(
            v,
            name=g.op(
                "MaxPool", v.name, kernel_shape=[k], strides=[s], dilations=[g.rng.choice((1, 2))], auto_pad=auto
            ),
            frames=frames,
        )
    if how == 2:
        return replace(
            v,
            name=g.op(
                "AveragePool",
                v.name,
                kernel_shape=[k],
                strides=[s],
                auto_pad=auto,
                count_include_pad=g.rng.choice((None, 1)),
            ),
            frames=frames,
        )
    return replace(
        v,
        name=g.op("LpPool", v.name, kernel_shape=[k], strides=[s], auto_pad=auto, p=g.rng.choice((1, 2))),
        frames=frames,
    )


def cropped_ends(g: Graph, v: Value) -> Value:
    """Frames cut from the end, the start or both, on any layout: the trimming after a transposed convolution, or a
    negative pad.
    """
    v = g.to(v, g.rng.choice((v.axes, "BCT", "BTC")))
    left, right = g.rng.choice(((0, 1), (0, 3), (2, 0), (1, 1), (2, 2)))
    if g.chance(0.3):
        name = g.pad(v.name, len(v.axes), v.t, -left, -right)
    else:
        name = g.slice(v.name, v.t, left, -right if right else LAST)
    return replace(v, name=name, frames=tuple(n - left - right for n in v.frames))


def two_ends(g: Graph, v: Value) -> Value:
    """Frames joined along time: a learned start token before, or zeros after, what comes."""
    v = g.to(v, "BTC")
    if g.batch != 1:
        raise Unwritable("one row of tokens")
    n = g.rng.randint(1, 2)
    token = g.weight(1, n, v.c)
    before = g.chance(0.7)
    name = g.op("Concat", token, v.name, axis=1) if before else g.op("Concat", v.name, token, axis=1)
    return replace(v, name=name, frames=tuple(m + n for m in v.frames))
