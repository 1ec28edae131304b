"""``--pulse dynamic``: any size at every call, the same states, the same frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pulsify_onnx import StreamSession, pulsify
from pulsify_onnx.runtime.runner import PulseRunner
from testing import ROOT
from testing.oracle import draw, parse, rand, session, take

FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))


def drawn(spec, frames, rng):
    """Random data of the batch model."""
    arrays = {}
    for i in spec["inputs"]:
        shape = [1 if isinstance(d, str) else d for d in i["shape"]]
        shape[i["axis"]] = frames * i["rate"][0] // i["rate"][1]
        arrays[i["name"]] = draw(rng, np.dtype(i["dtype"]), shape)
    return arrays


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_sizes(path, end, seed):
    streamed(onnx.load(path), end, seed)


@pytest.mark.parametrize(
    "cell",
    [
        "r, h, k = LSTM<hidden_size=5>(t, rw, rr, rb)",
        "r, h, k = LSTM<hidden_size=5>(t, rw, rr, rb, , h0, h0)",
        "r, h, k = LSTM<hidden_size=5, clip=0.4>(t, rw, rr, rb)",
    ],
)
@pytest.mark.parametrize("end", [False, True])
def test_recurrences_behind_a_delay(cell, end):
    """Pulses that bring the first real frame anywhere among their own, or the last one."""
    model = parse(
        f"""agraph (float[1,4,T] x) => (float[U,1,1,5] y) {{
        c = Conv<pads=[3,3]>(x, w, b)
        t = Transpose<perm=[2,0,1]>(c)
        {cell}
        y = Mul(r, two) }}""",
        w=rand(4, 4, 7),
        b=rand(4),
        rw=rand(1, 20, 4),
        rr=rand(1, 20, 5),
        rb=rand(1, 40),
        h0=rand(1, 1, 5),
        two=np.float32(2),
    )
    for seed in range(4):
        streamed(model, end, seed)


def streamed(model, end, seed):
    """A stream of pulses of random sizes is the batch run."""
    rng = np.random.default_rng(seed)
    pulsed = pulsify(model, pulse=None, end_of_stream=end)
    spec, multiple = pulsed.spec, pulsed.spec["pulse_multiple"]
    assert spec["pulse"] is None and all(
        i["frames_per_pulse"] is None and i["shape"][i["axis"]] is None for i in spec["inputs"]
    )
    fixed = pulsify(model, pulse=4 * multiple, end_of_stream=end).spec
    assert [(s["input"], s["shape"]) for s in spec["states"]] == [(s["input"], s["shape"]) for s in fixed["states"]]

    sizes = [multiple * int(n) for n in rng.choice([1, 1, 2, 3, 5, 17, 40], 9)]
    frames = sum(sizes)
    total = frames - int(rng.integers(0, sizes[-1])) if end else frames + 60 * multiple
    arrays = drawn(spec, total, rng)
    want = dict(zip([o["name"] for o in spec["outputs"]], session(model.SerializeToString()).run(None, arrays)))
    runner, flows, at = PulseRunner(pulsed), {o["name"]: [] for o in spec["outputs"]}, 0
    for size in sizes + [multiple] * spec["flush_pulses"]:
        feeds = {}
        for i in spec["inputs"]:
            begin, count = (n * i["rate"][0] // i["rate"][1] for n in (at, size))
            chunk = take(arrays[i["name"]], i["axis"], begin, begin + count)
            missing = list(chunk.shape)
            missing[i["axis"]] = count - chunk.shape[i["axis"]]
            past = np.full(missing, np.nan if chunk.dtype.kind == "f" else 1, chunk.dtype)
            feeds[i["name"]] = np.concatenate([chunk, past], i["axis"])
        for name, value in runner.step(feeds, min(max(total - at, 0), size)).items():
            flows[name].append(value)
        at += size
    for o in spec["outputs"]:
        axis, expected = o["axis"], want[o["name"]]
        flow = take(np.concatenate(flows[o["name"]], axis), axis, o["delay"], None)
        n = expected.shape[axis] if end else min(flow.shape[axis], expected.shape[axis])
        assert n > 0 and flow.shape[axis] >= n
        np.testing.assert_allclose(
            take(flow, axis, 0, n), take(expected, axis, 0, n), atol=2e-4 * max(1, float(np.abs(expected).max()))
        )


@pytest.mark.parametrize("path", [p for p in FIXTURES if p.stem != "pixelcnn"], ids=lambda p: p.stem)
def test_a_session_feeds_what_it_has(path):
    model, rng = onnx.load(path), np.random.default_rng(2)
    pulsed = pulsify(model, pulse=None, end_of_stream=True)
    stream, spec = StreamSession(pulsed), pulsed.spec
    ((name, x),) = drawn(spec, 101, rng).items()
    axis, out = spec["inputs"][0]["axis"], spec["outputs"][0]["axis"]
    runs = []
    step = stream._runner.step
    stream._runner.step = lambda feeds, valid: runs.append(feeds[name].shape[axis]) or step(feeds, valid)
    parts = [stream.push(part) for part in np.split(x, [60, 64, 65], axis)]
    assert max(runs) >= 60 // spec["pulse_multiple"] * spec["pulse_multiple"] and len(runs) <= 4
    got = np.concatenate([*parts, stream.flush()], out)
    want = session(model.SerializeToString()).run(None, {name: x})[0]
    np.testing.assert_allclose(got, want, atol=2e-4 * max(1, float(np.abs(want).max())))
