"""Outputs before their time: networks whose first layer hides the present, and what they generate."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import onnx
import pytest

from pulsify_onnx import StreamSession, pulsify
from pulsify_onnx.api import inspect, verify
from pulsify_onnx.cli import main
from testing import ROOT
from testing.oracle import parse, rand, session


def fixture(name: str) -> onnx.ModelProto:
    return onnx.load(ROOT / "fixtures" / f"{name}.onnx")


def example():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "examples" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["causal_net", "causal_net_dilated", "wavenet"])
@pytest.mark.parametrize("end", [False, True])
def test_a_hidden_present_is_one_frame_of_advance(name, end):
    model = fixture(name)
    for pulse in (1, 3, None):
        pulsed = pulsify(model, pulse=pulse, allow_advance=True, end_of_stream=end)
        assert [o["delay"] for o in pulsed.spec["outputs"]] == [-1] and pulsed.spec["flush_pulses"] == 0
        found = verify(model, pulsed)
        assert found.ok, found.message
    assert pulsify(model, pulse=3, end_of_stream=end).spec["outputs"][0]["delay"] == 0


@pytest.mark.parametrize("name", ["causal_net", "wavenet"])
def test_the_frames_that_never_come_are_in_the_sidecar(name):
    model = fixture(name)
    first = np.asarray(pulsify(model, pulse=1, allow_advance=True).spec["outputs"][0]["first_frames"])
    want = session(model.SerializeToString()).run(None, {"x": rand(1, 1, 5)})[0]
    np.testing.assert_allclose(first, want[..., :1], atol=1e-6)


LATER = """agraph (float[1,3,T] x) => (float[1,3,T] y) {
    a = Pad(x, shift, half)
    c = Conv<pads=[2,0]>(a, w, b)
    d = Tanh(c)
    e = Conv<pads=[4,0], dilations=[2]>(d, w, b)
    y = Add(e, d) }"""


@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("end", [False, True])
def test_shifts_of_several_frames_padded_with_a_value(shift, end):
    model = parse(
        LATER, shift=np.asarray([0, 0, shift, 0, 0, -shift], np.int64), half=np.float32(0.5), w=rand(3, 3, 3), b=rand(3)
    )
    for pulse in (1, 2, 7, None):
        pulsed = pulsify(model, pulse=pulse, allow_advance=True, end_of_stream=end)
        assert pulsed.spec["outputs"][0]["delay"] == -shift
        found = verify(model, pulsed)
        assert found.ok, found.message
    want = session(model.SerializeToString()).run(None, {"x": rand(1, 3, 9)})[0]
    np.testing.assert_allclose(np.asarray(pulsed.spec["outputs"][0]["first_frames"]), want[..., :shift], atol=1e-5)


@pytest.mark.parametrize(
    "text, delay",
    [
        ("y = Conv<pads=[1,1]>(a, w, b)", 0),  # the lookahead eats the advance
        ("c = Conv<pads=[2,0], strides=[2]>(a, w, b)\n y = Tanh(c)", -1),
        ("c = Conv<pads=[2,0]>(a, w, b)\n y = Add(c, x)", 0),  # beside the frames themselves
        ("c = MaxPool<kernel_shape=[3], pads=[2,0]>(a)\n y = Conv<pads=[2,0]>(c, w, b)", None),
        (
            "c = Conv<pads=[2,0]>(a, w, b)\n t = Transpose<perm=[0,2,1]>(c)\n s = Softmax<axis=-1>(t)\n y = "
            "Transpose<perm=[0,2,1]>(s)",
            -1,
        ),
        ("c = Conv<pads=[2,0]>(a, w, b)\n y = Concat<axis=1>(c, c)", -1),
        ("c = CumSum(a, two)\n y = Conv<pads=[2,0]>(c, w, b)", None),
        ("c = Conv<pads=[2,0]>(a, w, b)\n d = ConvTranspose<strides=[2]>(c, v)\n y = Tanh(d)", None),
        ("c = Conv<pads=[2,0]>(a, w, b)\n d = Slice(c, one, end, two1)\n y = Conv<pads=[2,0]>(d, w, b)", None),
    ],
)
def test_what_else_stands_behind_the_shift(text, delay):
    model = parse(
        "agraph (float[1,3,T] x) => (float[1,C,U] y) {\n a = Pad(x, shift)\n" + text + "}",
        shift=np.asarray([0, 0, 1, 0, 0, -1], np.int64),
        w=rand(3, 3, 3),
        b=rand(3),
        v=rand(3, 3, 2),
        two=np.int64(2),
        one=np.asarray([1], np.int64),
        end=np.asarray([2**62], np.int64),
        two1=np.asarray([2], np.int64),
    )
    for end in (False, True):
        for pulse in (2, 6, None):
            pulsed = pulsify(model, pulse=pulse, allow_advance=True, end_of_stream=end)
            found = verify(model, pulsed)
            assert found.ok, found.message
            if delay is not None and not end:
                assert pulsed.spec["outputs"][0]["delay"] == delay


@pytest.mark.parametrize("end", [False, True])
def test_stream_session_gives_what_it_can(end):
    model, x = fixture("causal_net"), rand(1, 1, 20, seed=2)
    want = session(model.SerializeToString()).run(None, {"x": x})[0]
    stream = StreamSession(pulsify(model, pulse=None, allow_advance=True, end_of_stream=end))
    got = [stream.push(x[..., :3]), stream.push(x[..., 3:])]
    assert got[0].shape[2] == 3 - end  # frame 3 is only sure while the stream goes on
    flow = np.concatenate([*got, *([stream.flush()] if end else [])], 2)
    np.testing.assert_allclose(flow[..., :19], want[..., 1:], atol=1e-5)


def test_the_report_says_minus_one(capfd):
    document = inspect(fixture("causal_net"), allow_advance=True).document
    assert document["outputs"][0]["delay"] == -1 and document["outputs"][0]["lookahead"] == 0
    main(["inspect", str(ROOT / "fixtures" / "causal_net.onnx"), "--allow-advance", "--frame-rate", "100"])
    assert "-1 frames = -10 ms" in capfd.readouterr().out


@pytest.mark.parametrize("how", ["greedy", "sampled"])
def test_sequences_and_images_are_those_of_the_naive_loop(how):
    generate = example()

    def pick():
        return generate.greedy if how == "greedy" else generate.sampling(3, temperature=20)

    assert generate.sequence(fixture("causal_net"), 40, pick()) == generate.sequence_again(
        fixture("causal_net"), 40, pick()
    )
    drawn = generate.image(fixture("pixelcnn"), 5, pick())
    np.testing.assert_array_equal(drawn, generate.image_again(fixture("pixelcnn"), 5, pick()))
    if how == "sampled":
        assert 0 < drawn.sum() < drawn.size
