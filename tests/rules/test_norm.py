import numpy as np
import pytest

from testing.oracle import check, parse, rand, refused

W = dict(w=rand(4, 4, 3), b=rand(4))
QUICK = dict(pulses=(1, 3, 7))
WHOLE = "normalises over the whole stream"


def delayed(body, y="float[1,4,U] y", head="", **weights):
    """`a` is a SAME convolution of `x`, one frame late; `t` has time in the middle."""
    return parse(
        f"""{head}agraph (float[1,4,T] x) => ({y}) {{
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[0,2,1]>(a)
        {body} }}""",
        **W,
        **weights,
    )


def test_batch_norm():
    check(
        delayed("y = BatchNormalization(a, g, b, m, v)", g=rand(4, seed=1), m=rand(4, seed=2), v=np.abs(rand(4)) + 0.1),
        delays={"y": 1},
        **QUICK,
    )
    check(
        parse(
            "agraph (float[T,4] x) => (float[U,4] y) { y = BatchNormalization(x, b, b, b, v) }",
            b=rand(4),
            v=np.ones(4, np.float32),
        ),
        delays={"y": 0},
        **QUICK,
    )


def test_batch_norm_refused():
    refused(
        delayed("y = BatchNormalization(t, g, g, g, g)", "float[1,U,4] y", g=rand(9)), "one mean and scale per frame"
    )
    refused(delayed("y, m, v = BatchNormalization<training_mode=1>(a, b, b, b, b)"), "training mode")


@pytest.mark.parametrize("axis", [-1, 2])
def test_layer_norm(axis):
    check(
        delayed(
            f"y, m, i = LayerNormalization<axis={axis}>(t, b, b)", "float[1,U,4] y, float[1,V,1] m, float[1,W,1] i"
        ),
        delays={"y": 1, "m": 1, "i": 1},
        rtol=1e-3,
        **QUICK,
    )


def test_layer_norm_over_the_stream():
    refused(delayed("y = LayerNormalization<axis=-1>(a, g)", g=rand(9)), WHOLE)
    refused(delayed("y = LayerNormalization<axis=1>(t, g)", "float[1,U,4] y", g=rand(9, 4)), WHOLE)


def test_rms_norm():
    refused(
        delayed("y = RMSNormalization<axis=-1>(a, g)", head='<ir_version: 11, opset_import: ["": 23]> ', g=rand(9)),
        WHOLE,
    )


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax(op):
    check(delayed(f"y = {op}<axis=1>(a)"), delays={"y": 1}, **QUICK)
    check(delayed(f"y = {op}(t)", "float[1,U,4] y"), delays={"y": 1}, **QUICK)
    refused(delayed(f"y = {op}(a)"), "")


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_of_old_opsets_flattens(op):
    head = '<ir_version: 6, opset_import: ["": 11]> '
    check(delayed(f"y = {op}<axis=2>(t)", "float[1,U,4] y", head=head), delays={"y": 1}, **QUICK)
    refused(delayed(f"y = {op}<axis=1>(a)", head=head), "")


def test_instance_and_group_norm():
    check(
        parse("agraph (float[T,4,6] x) => (float[U,4,6] y) { y = InstanceNormalization(x, b, b) }", b=rand(4)),
        rtol=1e-3,
        **QUICK,
    )
    refused(delayed("y = InstanceNormalization(a, b, b)"), WHOLE)
    head = '<ir_version: 10, opset_import: ["": 21]> '
    check(
        parse(
            head + "agraph (float[T,4,6] x) => (float[U,4,6] y) { y = GroupNormalization<num_groups=2>(x, g, g) }",
            g=rand(4),
        ),
        rtol=1e-3,
        **QUICK,
    )
    refused(
        parse(
            head + "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = GroupNormalization<num_groups=2>(x, g, g) }",
            g=rand(4),
        ),
        WHOLE,
    )


def test_lp_norm():
    check(delayed("y = LpNormalization<axis=1, p=2>(a)"), delays={"y": 1}, **QUICK)
    refused(delayed("y = LpNormalization(a)"), WHOLE)


def test_local_response():
    check(parse("agraph (float[1,4,T,3] x) => (float[1,4,U,3] y) { y = LRN<size=3>(x) }"), **QUICK)
    refused(parse("agraph (float[1,T,4,3] x) => (float[1,U,4,3] y) { y = LRN<size=3>(x) }"), "neighbouring channels")


def test_mean_variance():
    check(
        parse("agraph (float[1,T,4,3] x) => (float[1,U,4,3] y) { y = MeanVarianceNormalization(x) }"),
        rtol=1e-3,
        **QUICK,
    )
    check(
        parse("agraph (float[1,4,T,3] x) => (float[1,4,U,3] y) { y = MeanVarianceNormalization<axes=[1,3]>(x) }"),
        rtol=1e-3,
        **QUICK,
    )
    refused(parse("agraph (float[1,4,T,3] x) => (float[1,4,U,3] y) { y = MeanVarianceNormalization(x) }"), WHOLE)


def test_groups_of_channels_over_the_stream_are_refused():
    """As exporters write GroupNorm: channels of a group are merged before time."""
    refused(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,T] y) { r = Reshape(x, groups)
        n = InstanceNormalization(r, g, b)
        s = Shape(x)
        y = Reshape(n, s) }""",
            groups=np.int64([0, 2, -1]),
            g=rand(2),
            b=rand(2),
        ),
        "it normalises over the whole stream",
        op_type="InstanceNormalization",
    )
