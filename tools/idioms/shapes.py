"""Blocks that move frames: shifts, crops, framing, stacking, shuffles, resampling, and nets of such parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .convs import activation, conv1d, transposed
from .graph import LAST, Graph, Unwritable, Value, windowed


def join(g: Graph, a: Value, b: Value, how: str = "") -> Value:
    """Add or concatenate two values, cropping the longer where lengths differ (from the left, the right, or by a
    shape).
    """
    a, b = g.to(a, "BCT"), g.to(b, "BCT")
    gaps = {m - n for m, n in zip(a.usual, b.usual)}
    if gaps != {0}:
        if min(gaps) < 0 < max(gaps) or max(gaps) - min(gaps) > 3:
            raise Unwritable("lengths cross, or are of other rates")
        long, short = (a, b) if max(gaps) > 0 else (b, a)
        gap = abs(gaps.copy().pop()) if len(gaps) == 1 else None
        if gap and g.chance(0.5):
            left = g.rng.choice((0, gap, gap // 2))
            name = g.slice(long.name, 2, left, left - gap if left < gap else LAST)
        else:
            name = g.slice(long.name, 2, 0, g.dim(short.name, 2, flat=True))
        long = replace(long, name=name, frames=short.frames)
        a, b = (long, b) if max(gaps) > 0 else (a, long)
    if not how:
        how = g.rng.choice(("concat", "add"))
    if how == "add":
        if a.c != b.c:
            b = conv1d(g, b, a.c, 1)
        return replace(a, name=g.op("Add", a.name, b.name))
    return replace(
        a, name=g.op("Concat", a.name, b.name, axis=g.rng.choice((1, -2)) if g.opset >= 11 else 1), c=a.c + b.c
    )


def shift(g: Graph, v: Value) -> Value:
    """A delay or an advance by zeros and a slice, alone or as a difference with the present."""
    v = g.to(v, g.rng.choice(("BCT", "BTC")))
    n = g.rng.randint(1, 3)
    ahead = g.chance(0.3)
    if ahead:
        moved = g.pad(g.slice(v.name, v.t, n), 3, v.t, 0, n)
    elif g.chance(0.5):
        moved = g.slice(g.pad(v.name, 3, v.t, n, 0), v.t, 0, -n)
    else:
        moved = g.pad(g.slice(v.name, v.t, 0, -n), 3, v.t, n, 0)
    return replace(v, name=g.op("Sub", v.name, moved) if g.chance(0.5) else moved)


def difference(g: Graph, v: Value) -> Value:
    """x[1:] - x[:-1]."""
    v = g.to(v, g.rng.choice(("BCT", "BTC", "TBC")))
    later, earlier = g.slice(v.name, v.t, 1), g.slice(v.name, v.t, 0, -1)
    return replace(v, name=g.op("Sub", later, earlier), frames=tuple(n - 1 for n in v.frames))


def stepped(g: Graph, v: Value) -> Value:
    """x[a::s], perhaps with an end."""
    g.need(10)
    v = g.to(v, g.rng.choice(("BCT", "BTC")))
    start, step = g.rng.randint(0, 3), g.rng.choice((1, 2, 2, 3))
    end = g.rng.choice((LAST, 2**31 - 1, -1, -2))
    frames = tuple(-(-(n + (end if end < 0 else 0) - start) // step) for n in v.frames)
    return replace(v, name=g.slice(v.name, v.t, start, end, step), frames=frames)


def stacked(g: Graph, v: Value) -> Value:
    """Frames side by side by a reshape: on as many as divide, cropped by the shape, or padded to a multiple at the
    start.
    """
    v = g.to(v, "BTC")
    k = g.rng.choice((2, 3))
    name, frames = v.name, v.frames
    if any(n % k for n in frames):
        g.need(10)
        whole = g.op("Mul", g.op("Div", g.dim(name, 1, flat=True), g.ints(k)), g.ints(k))
        name, frames = g.slice(name, 1, 0, whole), tuple(n // k * k for n in frames)
    name = g.reshape(name, 0, -1, k * v.c)
    return activation(g, Value(name, "BTC", k * v.c, tuple(n // k for n in frames)))


def neighbours(g: Graph, v: Value) -> Value:
    """Splicing as Kaldi exports do: shifted slices of a padded stream, concatenated; perhaps every third kept."""
    v = g.to(v, "BTC")
    left, right = g.rng.randint(0, 2), g.rng.randint(0, 2)
    padded = g.pad(v.name, 3, 1, left, right, "edge" if g.chance(0.4) else "constant")
    if left + right == 0:
        raise Unwritable("nothing to splice")
    span = left + right
    parts = [g.slice(padded, 1, i, i - span if i < span else LAST) for i in range(span + 1)]
    y = replace(v, name=g.op("Concat", *parts, axis=2), c=v.c * (span + 1))
    if g.chance(0.4) and g.opset >= 10:
        return replace(y, name=g.slice(y.name, 1, 0, LAST, 3), frames=tuple(-(-n // 3) for n in y.frames))
    return y


def pixel_shuffle(g: Graph, v: Value) -> Value:
    """Channels become frames: sub-pixel convolution in one dimension."""
    v = g.to(v, "BCT")
    r = g.rng.choice((2, 3))
    out = g.rng.randint(1, 2)
    wide = conv1d(g, v, out * r, 3, pads=(2, 0) if g.chance(0.5) else (1, 1))
    split = g.reshape(wide.name, 0, out, r, -1)
    name = g.reshape(g.op("Transpose", split, perm=[0, 1, 3, 2]), 0, out, -1)
    return Value(name, "BCT", out, tuple(n * r for n in v.frames))


def channels(g: Graph, v: Value) -> Value:
    """Split, shuffle, tile or pick channels: a GLU, ShuffleNet's shuffle, a Gather of some."""
    v = g.to(v, "BCT" if g.chance(0.6) else "BTC")
    axis = v.at("C")
    how = g.rng.randrange(4)
    if how == 0:
        two = g.op("Concat", v.name, g.op("Neg", v.name), axis=axis)
        a, b = g.split(two, axis, v.c, v.c)
        return replace(v, name=g.op("Mul", a, g.op("Sigmoid", b)))
    if how == 1:
        picks = [g.rng.randrange(-v.c, v.c) for _ in range(g.rng.randint(1, 4))]
        return replace(v, name=g.op("Gather", v.name, g.const(picks, np.int64), axis=axis), c=len(picks))
    if how == 2 and v.axes == "BCT":
        two = g.op("Concat", v.name, v.name, axis=1)
        name = g.reshape(g.op("Transpose", g.reshape(two, 0, 2, v.c, -1), perm=[0, 2, 1, 3]), 0, 2 * v.c, -1)
        return replace(v, name=name, c=2 * v.c)
    name = g.op("Tile", v.name, g.ints(*[2 if i == axis else 1 for i in range(3)]))
    return replace(v, name=name, c=2 * v.c)


def resize(g: Graph, v: Value) -> Value:
    """interpolate(scale_factor=..) and UpSampling1D: nearest, linear or cubic, in any coordinates."""
    v = g.to(v, "BCT")
    r = g.rng.choice((2, 2, 3))
    grown = tuple(n * r for n in v.frames)
    if g.opset < 9:
        return Value(g.op("Upsample", v.name, mode="nearest", scales=[1.0, 1.0, float(r)]), "BCT", v.c, grown)
    scales = g.const([1.0, 1.0, r], np.float32)
    if g.opset == 9:
        return replace(v, name=g.op("Upsample", v.name, scales, mode=g.rng.choice(("nearest", "linear"))), frames=grown)
    if g.opset == 10:
        return replace(v, name=g.op("Resize", v.name, scales, mode=g.rng.choice(("nearest", "linear"))), frames=grown)
    down = g.chance(0.25)
    if down:
        scales, grown = g.const([1.0, 1.0, 1 / r], np.float32), tuple(int(n / r) for n in v.frames)
        if r == 3:
            raise Unwritable("a third is no float")
    mode = g.rng.choice(("nearest", "linear", "cubic"))
    where = g.rng.choice(
        ("half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners" if g.chance(0.2) else "asymmetric")
    )
    attrs = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        attrs["nearest_mode"] = g.rng.choice(("floor", "round_prefer_floor", "round_prefer_ceil", "ceil"))
    if mode == "cubic":
        x = g.unsqueeze(v.name, 1)
        scale4 = g.const([1.0, 1.0, 1.0, 1 / r if down else r], np.float32)
        y = g.op("Resize", x, g.const([], np.float32), scale4, cubic_coeff_a=g.rng.choice((-0.75, -0.5)), **attrs)
        return replace(v, name=g.squeeze(y, 1), frames=grown)
    return replace(
        v,
        name=g.op("Resize", v.name, g.const([], np.float32) if g.chance(0.5) or g.opset < 13 else "", scales, **attrs),
        frames=grown,
    )


def repeat_frames(g: Graph, v: Value) -> Value:
    """repeat_interleave: Unsqueeze, Expand or Tile, Reshape."""
    v = g.to(v, "BTC")
    r = g.rng.choice((2, 3))
    wide = (
        g.op("Tile", g.unsqueeze(v.name, 2), g.ints(1, 1, r, 1))
        if g.chance(0.6)
        else g.op("Concat", *[g.unsqueeze(v.name, 2)] * r, axis=2)
    )
    return replace(v, name=g.reshape(wide, 0, -1, v.c), frames=tuple(n * r for n in v.frames))


def resized_features(g: Graph, v: Value) -> Value:
    """A Resize of the features of a 2-D net while time passes."""
    g.need(11)
    v = g.to(v, g.rng.choice(("BCTF", "BCFT")))
    scales = g.const([1.0, 1.0, 1.0, 2.0] if v.axes == "BCTF" else [1.0, 1.0, 2.0, 1.0], np.float32)
    attrs = {
        "mode": g.rng.choice(("nearest", "linear")),
        "coordinate_transformation_mode": g.rng.choice(("asymmetric", "half_pixel", "align_corners")),
    }
    return replace(v, name=g.op("Resize", v.name, g.const([], np.float32), scales, **attrs), f=2 * v.f)


def u_net(g: Graph, v: Value) -> Value:
    """Down, a bottleneck, and up to the size of the skip: by interpolate(size=), a ConvTranspose and a crop, or
    nearest and a pad.
    """
    v = g.to(v, "BCT")
    s = 2
    k = g.rng.choice((2, 3, 4))
    pads = g.rng.choice(((0, 0), (k // 2, k // 2), (k - 2, 0))) if k > 2 else (0, 0)
    low = activation(g, conv1d(g, v, g.rng.randint(1, 4), k, s, pads=pads))
    low = activation(g, conv1d(g, low, low.c, 3, pads=g.rng.choice(((1, 1), (2, 0)))))
    how = g.rng.randrange(4)
    if how == 0 and g.opset >= 11:
        size = g.op("Concat", g.dim(low.name, 0, flat=True), g.ints(low.c), g.dim(v.name, 2, flat=True), axis=0)
        if g.chance(0.5):
            size = g.op("Concat", g.slice(g.op("Shape", low.name), 0, 0, 2), g.dim(v.name, 2, flat=True), axis=0)
        mode = g.rng.choice(("nearest", "linear"))
        where = "asymmetric" if mode == "nearest" else "half_pixel"
        near = {"nearest_mode": "floor"} if mode == "nearest" else {}
        empty = g.const([], np.float32)
        up = replace(
            low,
            name=g.op("Resize", low.name, empty, empty, size, mode=mode, coordinate_transformation_mode=where, **near),
            frames=v.frames,
        )
    elif how == 1:
        up = transposed(g, low)
    else:
        up = resize(g, low)
    return activation(g, join(g, up, v))


def stft_like(g: Graph, v: Value) -> Value:
    """A spectral masker: frames by a strided convolution, a mask, and overlap-add by a ConvTranspose."""
    v = g.to(g.to(v, "BT"), "BCT")
    hop = g.rng.choice((2, 3, 4))
    win, bins = 2 * hop, g.rng.randint(2, 3)
    if g.chance(0.5):
        left = g.rng.choice((win - hop, hop))
        mode = "reflect" if g.chance(0.2) else "constant"
        right = left if mode == "reflect" else 0
        v = replace(v, name=g.pad(v.name, 3, 2, left, right, mode), frames=tuple(n + left + right for n in v.frames))
    spec = Value(
        g.op("Conv", v.name, g.weight(2 * bins, 1, win), strides=[hop]), "BCT", 2 * bins, windowed(v.frames, win, hop)
    )
    real, imag = g.split(spec.name, 1, bins, bins)
    power = g.op("Add", g.op("Mul", real, real), g.op("Mul", imag, imag))
    size = Value(g.op("Sqrt", g.op("Add", power, g.const(1e-3))), "BCT", bins, spec.frames)
    mask = g.op("Sigmoid", conv1d(g, size, bins, 3, pads=g.rng.choice(((2, 0), (1, 1)))).name)
    both = g.op("Concat", g.op("Mul", real, mask), g.op("Mul", imag, mask), axis=1)
    y = g.op("ConvTranspose", both, g.weight(2 * bins, 1, win), strides=[hop])
    frames = tuple((n - 1) * hop + win for n in spec.frames)
    if g.chance(0.6):
        cut = g.rng.choice((win - hop, hop))
        end = -cut if g.chance(0.5) else LAST
        y, frames = g.slice(y, 2, cut, end), tuple(n - cut - (cut if end < 0 else 0) for n in frames)
    return Value(y, "BCT", 1, frames)


def bias_mask_rows(g: Graph, v: Value) -> Value:
    """A constant along time: ConstantOfShape or Expand to the shape of the stream, concatenated as a channel."""
    g.need(9)
    v = g.to(v, "BCT")
    rows, frames = g.dim(v.name, 0, flat=True), g.dim(v.name, 2, flat=True)
    one = g.op("Expand", g.const(np.full((1, 1, 1), 0.5)), g.op("Concat", rows, g.ints(1), frames, axis=0))
    return replace(v, name=g.op("Concat", v.name, one, axis=1), c=v.c + 1)
