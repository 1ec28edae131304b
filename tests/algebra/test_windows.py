"""Delay arithmetic: the delay of every output against the lookahead measured on the batch model, and the bookkeeping
of ends.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from pulsify_onnx.api import pulsify
from testing.lookahead import SMOOTH, off
from testing.networks import network
from testing.oracle import check, parse, rand, session


@pytest.mark.parametrize("seed", range(40))
def test_delay_is_what_the_network_needs(seed: int) -> None:
    """Never smaller than measured, and larger behind a solid border alone, on random networks of strides up and
    down.
    """
    net = network(10_000 + seed, size=6, layers=SMOOTH)
    assert [str(found) for found in off(net.model, net.unit) if found.delay < found.least or not found.borders] == []


@pytest.mark.parametrize(
    "more, body",
    [
        (1, "y = Conv<pads=[2,2]>(x, w)"),
        (-1, "y = Conv<pads=[2,2]>(x, w)"),
        (-1, "a = Conv<pads=[2,2]>(x, w)  y = Max(a, x)"),
    ],
)
def test_a_delay_that_is_off_is_seen(monkeypatch: pytest.MonkeyPatch, more: int, body: str) -> None:
    """Too large, and too small even where some frames need less than others."""
    model = parse(f"agraph (float[1,1,T] x) => (float[1,1,T] y) {{ {body} }}", w=rand(1, 1, 5))
    pulsed = pulsify(model, pulse=None)
    pulsed.spec["outputs"][0]["delay"] += more
    monkeypatch.setattr("testing.lookahead.pulsify", lambda *_, **__: pulsed)
    assert [(o.delay, o.least, o.borders) for o in off(model, 1)] == [(2 + more, 2, ())]


def flush_needed(pulse: int, rate: Fraction, delay: int, extent: list[int]) -> int:
    """Pulses after the last one with data until every frame is out, the worst of all stream lengths (`extent[n]`
    frames for n).
    """
    worst = 0
    for n, frames in enumerate(extent):
        if n and frames > 0:
            worst = max(worst, math.ceil((frames + delay) / (rate * pulse)) - math.ceil(n / pulse))
    return worst


NETS = {
    "same stack": ("a = Conv<pads=[2,2]>(x, w)  y = Conv<pads=[2,2]>(a, w)", 1),
    "stride": ("a = Conv<pads=[2,2], strides=[2]>(x, w)  y = Conv<pads=[2,2], strides=[3]>(a, w)", 6),
    "down and up": ("a = Conv<pads=[2,2], strides=[2]>(x, w)  y = ConvTranspose<strides=[2], pads=[0,0]>(a, v)", 2),
    "longer than the stream": ("y = Conv<pads=[4,9]>(x, w)", 1),
    "shorter than the stream": ("y = Conv(x, w)", 1),
    "ceil": ("a = MaxPool<kernel_shape=[3], strides=[2], ceil_mode=1>(x)  y = Conv<pads=[2,2]>(a, w)", 2),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pulse", (1, 2, 3, 5))
def test_flush_pulses_are_enough_and_no_more(name: str, pulse: int) -> None:
    """Against every length up to 60 frames."""
    body, multiple = NETS[name]
    model = parse(f"agraph (float[1,1,T] x) => (float[1,1,U] y) {{ {body} }}", w=rand(1, 1, 5), v=rand(1, 1, 4))
    spec = pulsify(model, pulse=pulse * multiple, end_of_stream=True).spec
    run, extent = session(model.SerializeToString()), [0]
    for n in range(1, 61):
        try:
            extent.append(run.run(None, {"x": np.zeros((1, 1, n), np.float32)})[0].shape[2])
        except Exception:  # too short for the batch model
            extent.append(0)
    out = spec["outputs"][0]
    assert spec["flush_pulses"] == flush_needed(pulse * multiple, Fraction(*out["rate"]), out["delay"], extent)


@pytest.mark.parametrize("name", NETS)
def test_every_length(name: str) -> None:
    """Streams shorter than the receptive field, and every remainder by the pulse."""
    body, _ = NETS[name]
    model = parse(
        f"agraph (float[1,1,T] x) => (float[1,1,U] y) {{ {body} }}", w=rand(1, 1, 5), v=rand(1, 1, 4), b=rand(1)
    )
    for length in (5, 6, 7, 8, 9, 11, 14):
        check(model, pulses=(1, 4), length=length)


def test_history_is_as_long_as_the_greediest_window() -> None:
    """Readers of one wire share its history; so do a padded and a plain reader."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z, float[1,2,W] u) {
        y = Conv<pads=[4,0]>(x, w)
        z = Conv<pads=[4,0], dilations=[2]>(x, v)
        u = Conv(x, w) }""",
            w=rand(2, 2, 5),
            v=rand(2, 2, 3),
        ),
        delays={"y": 0, "z": 0, "u": 4},
        state_bytes=2 * 4 * 4,
    )


def test_padded_and_plain_readers_share_a_masked_history() -> None:
    """Behind a delay the arriving pulse is masked once, and the plain reader takes the same history."""
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        a = Conv(x, w)
        y = Conv<pads=[4,0]>(a, w)
        z = Conv(a, w) }""",
        w=rand(2, 2, 5),
    )
    check(model, delays={"y": 4, "z": 8}, state_bytes=2 * 4 * 4 * 2 + 8)


def test_two_pads_on_one_wire() -> None:
    """Same wire, same history, other borders."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z, float[1,2,W] u) {
        a = Conv(x, w)
        y = Conv<pads=[2,2]>(a, w)
        p = Pad(a, pads, one)
        z = Conv(p, w)
        m = MaxPool<kernel_shape=[5], pads=[2,2]>(a)
        u = Add(m, a) }""",
            w=rand(2, 2, 5),
            pads=np.array([0, 0, 2, 0, 0, 2]),
            one=np.float32(1),
        ),
        delays={"y": 6, "z": 6, "u": 6},
    )


def test_windows_that_skip_frames() -> None:
    """A stride larger than the kernel reads frames from inside the pulse; a smaller pulse than the skip does not
    fit.
    """
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y, float[1,2,V] z) {
        y = Conv<strides=[5]>(x, w)
        c = Slice(x, one, far, two)
        z = Conv<strides=[5]>(c, w) }""",
        w=rand(2, 2, 1),
        one=np.array([3]),
        far=np.array([2**31 - 1]),
        two=np.array([2]),
    )
    check(model, delays={"y": 0, "z": 0}, state_bytes=0, pulses=(5, 10))


def test_crop_at_the_end_needs_no_lookahead_while_the_stream_lives() -> None:
    """Frame T-1 of the result is padding: it can be known only when the stream has ended."""
    model = parse(
        """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        c = Pad(x, pads)
        y = Conv<pads=[1,1]>(c, w) }""",
        w=rand(2, 2, 3),
        pads=np.array([0, 0, 1, 0, 0, -1]),
    )
    check(model, delays={"y": 0})
    assert pulsify(model, pulse=4, end_of_stream=True).spec["outputs"][0]["delay"] == 1


def test_chomp_on_both_sides() -> None:
    """Padding that is cut away again costs nothing."""
    check(
        parse(
            """agraph (float[1,2,T] x) => (float[1,2,U] y) {
        a = Conv<pads=[4,4]>(x, w, b)
        y = Slice(a, start, end, two) }""",
            w=rand(2, 2, 5),
            b=rand(2),
            start=np.array([2]),
            end=np.array([-2]),
            two=np.array([2]),
        ),
        delays={"y": 2},
    )
