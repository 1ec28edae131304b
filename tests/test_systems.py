"""The systems that the idea comes from, each streamed at several pulses and compared with its batch run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from pulsify_onnx.api import pulsify
from testing import ROOT
from testing.oracle import check, run_stream, session

FIXTURES = ROOT / "fixtures"
FLOAT = 4
CLOCK = 8


def fixture(name: str) -> onnx.ModelProto:
    """A committed model."""
    return onnx.load(FIXTURES / f"{name}.onnx")


def test_fixtures_are_what_the_script_makes(tmp_path: Path) -> None:
    """Byte for byte, and nothing else lies there."""
    spec = importlib.util.spec_from_file_location("make", FIXTURES / "make.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    make.main(tmp_path)
    made = {p.name: p.read_bytes() for p in tmp_path.glob("*.onnx")}
    kept = {p.name: p.read_bytes() for p in FIXTURES.glob("*.onnx")}
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == []
    assert sum(map(len, kept.values())) < 1_000_000


def test_valid_convolution() -> None:
    """10 frames in, 8 out; pulse 4, delay 2, two unspecified frames first."""
    model = fixture("valid_conv")
    pulsed = pulsify(model, pulse=4)
    assert pulsed.spec["outputs"][0]["delay"] == 2
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 12)
    want = session(model.SerializeToString()).run(None, {"x": x[..., :10]})[0]
    assert want.shape == (1, 1, 8)
    got = run_stream(pulsed, {"x": x}, {}, 12, 0)["y"]
    assert [g.shape for g in got] == [(1, 1, 4)] * 3
    np.testing.assert_allclose(np.concatenate(got, 2)[..., 2:10], want, rtol=1e-5)
    check(model, delays={"y": 2}, state_bytes=2 * FLOAT)


def test_two_valid_convolutions_add_up() -> None:
    """2 + 2 frames; the second remembers its own two frames of two channels."""
    check(fixture("valid_conv_pair"), delays={"y": 4}, state_bytes=(2 + 2 * 2) * FLOAT)


def test_delay_with_overlap_and_pure_delay_at_a_join() -> None:
    """The convolution waits for two frames and the skip waits for it; both read one history of the input."""
    check(fixture("delays_at_a_join"), delays={"y": 2}, state_bytes=2 * 4 * FLOAT)


def test_padded_convolutions_stacked() -> None:
    """One frame of delay for each, no more; the first and the last frames are exact."""
    check(fixture("same_stack"), delays={"y": 3}, state_bytes=3 * 4 * 2 * FLOAT + CLOCK)
    for length in (1, 2, 3, 5):
        check(fixture("same_stack"), length=length)


def test_gru_behind_padded_convolutions() -> None:
    """It starts at frame 0 from its initial state, however long the stream warms up."""
    check(fixture("same_gru"), delays={"y": 2}, state_bytes=(2 * 4 * 2 + 6) * FLOAT + CLOCK)
    check(fixture("same_gru"), length=1)


def test_causal_net() -> None:
    """Six convolutions of two taps behind a shift by one frame: no delay at all."""
    check(fixture("causal_net"), delays={"y": 0})


def test_causal_net_dilated() -> None:
    """Dilations 2, 4, 8, 16: still no delay."""
    pulsed = check(fixture("causal_net_dilated"), delays={"y": 0}, length=70)
    assert pulsed.spec["outputs"][0]["receptive_field"] == 1 + 2 + 4 + 8 + 16


def test_wavenet() -> None:
    """Ten gated layers: each input is remembered once for filter and gate; that of the first waits as one channel,
    not as four.
    """
    pulsed = check(fixture("wavenet"), delays={"y": 0}, length=1100, pulses=(3, 160))
    frames = 1 + sum(2**k for k in range(10))
    assert pulsed.spec["outputs"][0]["receptive_field"] == frames
    live = pulsify(fixture("wavenet"), pulse=16).spec
    assert sum(s["bytes"] for s in live["states"] if s["role"] == "history") == (4 * (frames - 1) + 1) * FLOAT


def test_pixelcnn() -> None:
    """Row by row, with the place of every pixel as a second stream of booleans."""
    place = {"location": lambda rng, shape: rng.random(shape) < 0.5}
    pulsed = check(fixture("pixelcnn"), delays={"y": 0}, inputs=place, pulses=(1, 2, 5), length=14)
    assert [(i["name"], i["dtype"], i["axis"]) for i in pulsed.spec["inputs"]] == [
        ("image", "float32", 2),
        ("location", "bool", 2),
    ]


def test_bank_of_biquads() -> None:
    """Four states of a Scan: two samples, and two outputs of every band."""
    pulsed = check(fixture("biquad_bank"), delays={"y": 0}, pulses=(1, 3, 16))
    assert pulsed.spec["outputs"][0]["axis"] == 2
    live = pulsify(fixture("biquad_bank"), pulse=16).spec
    assert live["state_bytes"] == (1 + 1 + 128 + 128) * FLOAT
    assert live["outputs"][0]["receptive_field"] is None


def test_grouped_convolution() -> None:
    """The state is the two frames that the kernel looks back."""
    check(fixture("grouped_conv"), delays={"y": 2}, state_bytes=9 * 2 * FLOAT)


def test_grouped_dilated_convolution() -> None:
    """Four frames back, and no clock, for zeros are what it starts with."""
    check(fixture("grouped_conv_dilated"), delays={"y": 0}, state_bytes=9 * 4 * FLOAT)


def test_separable_convolution() -> None:
    """Stride 2 absorbs one of the two frames of lookahead."""
    check(fixture("separable_conv"), delays={"y": 1}, state_bytes=6 * 4 * FLOAT)


@pytest.mark.parametrize("name", sorted(p.stem for p in FIXTURES.glob("*.onnx")))
def test_no_state_without_end_holds_a_pulse(name: str) -> None:
    """States do not grow with the pulse."""
    small, large = (pulsify(fixture(name), pulse=p, axes=None).spec["state_bytes"] for p in (2, 64))
    assert small == large
