from __future__ import annotations

import numpy as np

from fixtures.biquads import biquad_bank, coefficients
from testing.oracle import check, session


def test_bank_is_the_recurrence_it_says():
    x = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)
    (y,) = session(biquad_bank().SerializeToString()).run(None, {"x": x})
    b0, a1, a2 = (c.astype(np.float64) for c in coefficients())
    want = np.zeros((2, 128, 52))
    for n in range(50):
        rise = x[:, n] - (x[:, n - 2] if n >= 2 else 0)
        want[:, :, n] = b0 * rise[:, None] - a1 * want[:, :, n - 1] - a2 * want[:, :, n - 2]
    assert np.abs(y - want[:, :, :50]).max() < 1e-4


def test_bank_streams_without_delay_and_without_a_clock():
    pulsed = check(
        biquad_bank(), axes={"x": 1}, delays={"y": 0}, pulses=(1, 3, 32), state_bytes=4 * (1 + 1 + 128 + 128)
    )
    assert [s["shape"] for s in pulsed.spec["states"]] == [["batch", 1], ["batch", 1], ["batch", 128], ["batch", 128]]
