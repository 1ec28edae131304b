import numpy as np

from testing.oracle import check, parse, rand, refused

HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>\n'


def test_binarizer_behind_a_delay():
    check(
        parse(
            HEAD
            + """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        y = ai.onnx.ml.Binarizer<threshold=0.2>(a) }""",
            w=rand(4, 4, 3),
            b=rand(4),
        ),
        delays={"y": 1},
    )


def test_binarizer_of_a_padded_stream():
    check(
        parse(
            HEAD
            + """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        p = Pad(x, pads)
        a = ai.onnx.ml.Binarizer<threshold=-0.2>(p)
        y = Conv(a, w, b) }""",
            pads=np.asarray([0, 0, 2, 0, 0, 0]),
            w=rand(4, 4, 3),
            b=rand(4),
        ),
        delays={"y": 2},
    )


def test_other_operators_of_the_domain_are_refused():
    refused(
        parse(
            HEAD + "agraph (float[1,T,2] x) => (float[1,U,2] y) { y = ai.onnx.ml.Scaler<offset=[0.0,1.0], "
            "scale=[1.0,2.0]>(x) }"
        ),
        "no rule knows",
        op_type="Scaler",
    )


def test_binarizer_behind_a_crop_at_the_end():
    check(
        parse(
            HEAD
            + """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        c = Slice(x, zero, end, two)
        y = ai.onnx.ml.Binarizer<threshold=0.2>(c) }""",
            zero=np.array([0]),
            end=np.array([-5]),
            two=np.array([2]),
        )
    )
