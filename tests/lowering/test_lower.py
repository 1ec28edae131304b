"""What lowering writes."""

from __future__ import annotations

import numpy as np

from testing.oracle import check, parse, rand


def test_quantised_weights_stay_quantised():
    """Folded to floats, onnxruntime would quantise them again by one scale for all channels: another network."""
    weights = np.random.default_rng(0).integers(-127, 127, (4, 4, 3)).astype(np.int8)
    pulsed = check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        f = DequantizeLinear<axis=0>(w, ws, wz)
        c = Conv(d, f)
        r = QuantizeLinear(c, s, z)
        y = DequantizeLinear(r, s, z) }""",
            w=weights,
            ws=np.asarray([0.01, 0.003, 0.001, 0.0003], np.float32),
            wz=np.zeros(4, np.int8),
            s=np.float32(0.03),
            z=np.int8(0),
        ),
        delays={"y": 2},
        rtol=1e-2,
    )  # a rounding tie is one step of the scale
    assert any(t.data_type == 3 and tuple(t.dims) == (4, 4, 3) for t in pulsed.proto().graph.initializer)


def test_an_initializer_that_is_an_output():
    check(parse("agraph (float[1,4,T] x) => (float[1,4,T] y, float[4,1] w) { y = Mul(x, w) }", w=rand(4, 1)))
