"""A Conformer encoder: subsampling, relative positions, chunks with a left context, many layers."""

import numpy as np
import onnx
import pytest

from fixtures.conformer import conformer
from pulsify_onnx.api import pulsify, verify
from pulsify_onnx.errors import PulseDoesNotFit
from testing.oracle import close, run_stream, session

SMALL = dict(dim=16, heads=2, mels=16, kernel=5, rows=400)


@pytest.mark.parametrize("end", [False, True])
def test_two_layers(end):
    m = conformer(layers=2, left=8, **SMALL)
    pulsed = pulsify(m, pulse=16, end_of_stream=end)
    assert pulsed.spec["pulse_multiple"] == 16 and pulsed.spec["outputs"][0]["delay"] == 4
    assert verify(m, pulsed).ok


def test_every_frame_of_a_ragged_stream():
    m = conformer(layers=2, left=8, **SMALL)
    pulsed = pulsify(m, pulse=32, end_of_stream=True)
    x = np.random.default_rng(0).standard_normal((1, 203, 16)).astype(np.float32)
    got = np.concatenate(run_stream(pulsed, {"mels": x}, {}, 203, pulsed.spec["flush_pulses"])["y"], 1)
    want = session(m.SerializeToString()).run(None, {"mels": x})[0]
    delay = pulsed.spec["outputs"][0]["delay"]
    close(got[:, delay : delay + want.shape[1]], want, "203 frames", 1e-5)


def test_a_pulse_that_cuts_chunks_does_not_fit():
    with pytest.raises(PulseDoesNotFit) as caught:
        pulsify(conformer(layers=1, left=8, **SMALL), pulse=4)
    assert caught.value.smallest == 16


def test_state_is_the_keys_and_values_of_the_left_context():
    """The last query of a chunk sees 67 frames before it, and the chunk itself waits for its last frame."""
    left, chunk, heads, size = 64, 4, 2, 8
    spec = pulsify(conformer(layers=1, left=left, **SMALL), pulse=16).spec
    cache = [s for s in spec["states"] if s["bytes"] >= 4 * left * heads * size]
    assert [s["bytes"] for s in cache] == [4 * heads * size * (left + 2 * (chunk - 1))] * 2


def test_twelve_layers():
    m = conformer(layers=12, left=64, **{**SMALL, "heads": 8, "rows": 2000})
    pulsed = pulsify(m, pulse=16, end_of_stream=True)
    found = verify(m, pulsed, frames=400)
    assert found.ok and found.compared > 100, found.message


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_exported_by_torch(dynamo):
    pytest.importorskip("torch", reason="the extra `torch` is not installed")
    from fixtures.conformer_torch import exported

    m = onnx.load_from_string(exported(dynamo, layers=2, left=8, **SMALL))
    found = verify(m, pulsify(m, pulse=16, end_of_stream=True), frames=200)
    assert found.ok and found.compared > 50, found.message
