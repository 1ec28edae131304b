"""Padding at the start, an operator that changes the rate, and a crop: what begins in the padding is not waited for."""

from __future__ import annotations

import numpy as np
import pytest

from testing.lookahead import off
from testing.oracle import check, every_length, parse, rand

NEAREST = 'Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(p, , three)'

CASES = {
    "transposed, dilated": ("p = Pad(x, four)  y = ConvTranspose<dilations=[2], pads=[4,4]>(p, v, b)", 0),
    "transposed, cropped by its pads": ("p = Pad(x, two)  y = ConvTranspose<pads=[2,2]>(p, v, b)", 0),
    "transposed with a stride": (
        "p = Pad(x, two)  q = ConvTranspose<strides=[2]>(p, w, b)  y = Slice(q, from, to, axis)",
        0,
    ),
    "transposed behind another value": (
        "p = Pad(x, two, half)  q = ConvTranspose<strides=[2]>(p, w, b)  y = Slice(q, from, to, axis)",
        0,
    ),
    "transposed behind a bias": (
        "p = Conv<pads=[3,3]>(x, v, b)  q = ConvTranspose<strides=[2]>(p, w, b)  y = Slice(q, from, to, axis)",
        2,
    ),
    "transposed twice, then a convolution": (
        "p = Pad(x, two)  q = ConvTranspose<strides=[2], pads=[1,1]>(p, w, b)  r = ConvTranspose<strides=[3]>(q, "
        "w, b)  y = Conv(r, w, b)",
        0,
    ),
    "nearest": (f"p = Pad(x, two, half)  q = {NEAREST}  y = Slice(q, from, to, axis)", 0),
    "nearest behind a learned start": (
        f"p = Concat<axis=2>(start, x)  q = {NEAREST}  y = Conv<pads=[1,1]>(q, v, b)",
        0,
    ),
    "frames become hops": (
        "p = Pad(x, four)  t = Transpose<perm=[0,2,1]>(p)  r = Reshape(t, hops)  q = Transpose<perm=[0,2,1]>(r)  y "
        "= Conv(q, hop, b)",
        0,
    ),
    "channels become frames": (
        "p = Pad(x, two, half)  t = Transpose<perm=[0,2,1]>(p)  r = Reshape(t, apart)  q = "
        "Transpose<perm=[0,2,1]>(r)  y = Conv(q, one, b)",
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_border_goes_through_a_change_of_rate(name: str) -> None:
    body, delay = CASES[name]
    model = parse(
        f"agraph (float[1,2,T] x) => (float[1,2,U] y) {{ {body} }}",
        v=rand(2, 2, 3),
        w=rand(2, 2, 4),
        b=rand(2),
        half=np.float32(0.5),
        start=rand(1, 2, 2),
        two=np.array([0, 0, 2, 0, 0, 1]),
        four=np.array([0, 0, 4, 0, 0, 0]),
        three=np.array([1, 1, 3], np.float32),
        axis=np.array([2]),
        to=np.array([2**31 - 1]),
        hops=np.array([1, -1, 4]),
        hop=rand(2, 4, 2),
        apart=np.array([1, -1, 1]),
        one=rand(2, 1, 3),
        **{"from": np.array([4])},
    )
    unit = 2 if name == "frames become hops" else 1
    check(model, delays={"y": delay}, unit=unit)
    if unit == 1:
        every_length(model)


@pytest.mark.parametrize("name", [name for name in CASES if "hops" not in name and "channels" not in name])
def test_the_delay_is_the_least(name: str) -> None:
    body, _ = CASES[name]
    model = parse(
        f"agraph (float[1,2,T] x) => (float[1,2,U] y) {{ {body} }}",
        v=rand(2, 2, 3),
        w=rand(2, 2, 4),
        b=rand(2),
        half=np.float32(0.5),
        start=rand(1, 2, 2),
        two=np.array([0, 0, 2, 0, 0, 1]),
        four=np.array([0, 0, 4, 0, 0, 0]),
        three=np.array([1, 1, 3], np.float32),
        axis=np.array([2]),
        to=np.array([2**31 - 1]),
        **{"from": np.array([4])},
    )
    assert [str(found) for found in off(model, 1)] == []
