"""First frames that are cropped are not waited for: mirrored ones, and padding that is made of real frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx.api import pulsify, verify
from testing.oracle import check, every_length, parse, rand

MODES = ("edge", "reflect")

NETWORKS = {
    "conv": ("c = Conv(p, w, b)", 3, (0, 4)),
    "conv between operators of frames": ("q = Relu(p)  s = Conv(q, w, b)  c = Tanh(s)", 3, (0, 4)),
    "conv that is cropped at last": ("s = Conv(p, w, b)  c = Conv<pads=[2,2]>(s, w, b)", 7, (6, 6)),
    "conv with a stride": ("c = Conv<strides=[2]>(p, w, b)", 2, (0, 1)),
    "pool": ("c = MaxPool<kernel_shape=[3]>(p)", 6, (1, 1)),
    "padded twice": ("s = Conv(p, w, b)  q = Pad(s, more, half)  c = Conv(q, w, b)", 8, (6, 6)),
    "joined": ("s = Conv(p, w, b)  l = Slice(p, two, last, axis)  c = Add(s, l)", 3, (0, 4)),
}


def network(layers: str, mode: str, start: int, then: str = "y = Identity(r)") -> onnx.ModelProto:
    """A pad that mirrors seven frames, layers from `p` to `c`, and a crop by `start` frames; `then` reads what is
    left as `r`.
    """
    return parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        p = Pad<mode="{mode}">(x, pads)
        {layers}
        r = Slice(c, start, end, axis)
        {then} }}""",
        pads=np.array([0, 0, 7, 0, 0, 7]),
        w=rand(2, 2, 5),
        b=rand(2),
        start=np.array([start]),
        end=np.array([-start]),
        axis=np.array([2]),
        more=np.array([0, 0, 3, 0, 0, 0]),
        half=np.float32(0.5),
        two=np.array([2]),
        last=np.array([-2]),
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers, start, delays", NETWORKS.values(), ids=NETWORKS)
def test_padding_that_is_cropped_again(layers: str, start: int, delays: tuple[int, int], mode: str) -> None:
    model = network(layers, mode, start)
    check(model, delays={"y": delays[MODES.index(mode)]}, rtol=1e-3, absorbed=True)
    every_length(model, rtol=1e-3)


GRU = """t = Transpose<perm=[2,0,1]>(s)
        g = GRU<hidden_size=2>(t, v, u)
        e = Squeeze(g, one)
        c = Transpose<perm=[1,2,0]>(e)"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layer", ("c = CumSum(s, along)", "c = CumSum(p, along)", GRU))
def test_what_is_carried_has_seen_every_frame(layer: str, mode: str) -> None:
    """A sum over frames that are cropped afterwards is a sum of them still."""
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y) {{
        p = Pad<mode="{mode}">(x, pads)
        s = Conv(p, w, b)
        {layer}
        y = Slice(c, three, last, axis) }}""",
        pads=np.array([0, 0, 7, 0, 0, 7]),
        w=rand(2, 2, 5),
        b=rand(2),
        v=rand(1, 6, 2),
        u=rand(1, 6, 2),
        three=np.array([3]),
        last=np.array([-3]),
        axis=np.array([2]),
        one=np.array([1]),
        along=np.int64(2),
    )
    check(model, delays={"y": 3 if mode == "edge" else 10}, rtol=1e-3, absorbed=True)
    every_length(model, rtol=1e-3)


@pytest.mark.parametrize("mode, delays", [("edge", {"y": 3, "z": 0}), ("reflect", {"y": 10, "z": 7})])
def test_one_reader_that_begins_sooner_makes_all_wait(mode: str, delays: dict[str, int]) -> None:
    model = parse(
        f"""agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {{
        p = Pad<mode="{mode}">(x, pads)
        c = Conv(p, w, b)
        y = Slice(c, three, last, axis)
        z = Identity(c) }}""",
        pads=np.array([0, 0, 7, 0, 0, 7]),
        w=rand(2, 2, 5),
        b=rand(2),
        three=np.array([3]),
        last=np.array([-3]),
        axis=np.array([2]),
    )
    check(model, delays=delays, absorbed=True)


def test_a_wire_tells_how_many_of_its_frames_nobody_reads() -> None:
    found = pulsify(network("c = Conv(p, w, b)", "reflect", 3), pulse=1)
    assert found.plan.unread == {"c": 3} and verify(network("c = Conv(p, w, b)", "reflect", 3), found).ok
