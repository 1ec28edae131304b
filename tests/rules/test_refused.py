import numpy as np
import pytest

from pulsify_onnx.rules.refused import DATA_DEPENDENT, OPTIONAL, RANDOM, RANGE, SEQUENCE, TEXT
from testing.oracle import check, parse, refused

NEW = '<ir_version: 10, opset_import: ["": 20]> '


@pytest.mark.parametrize(
    "op, text, reason",
    [
        ("Compress", "float[U,4] y) { y = Compress<axis=0>(x, c) }", DATA_DEPENDENT),
        ("NonZero", "int64[2,U] y) { y = NonZero(x) }", DATA_DEPENDENT),
        ("Unique", "float[U] y) { y = Unique(x) }", DATA_DEPENDENT),
        ("RandomNormalLike", "float[U,4] y) { y = RandomNormalLike(x) }", RANDOM),
        ("Bernoulli", "float[U,4] y) { y = Bernoulli(x) }", RANDOM),
        ("Multinomial", "int32[U,1] y) { y = Multinomial(x) }", RANDOM),
        ("SequenceConstruct", "seq(float[U,4]) y) { y = SequenceConstruct(x) }", SEQUENCE),
        ("SplitToSequence", "seq(float[U,4]) y) { y = SplitToSequence(x) }", SEQUENCE),
        ("Optional", "optional(float[U,4]) y) { y = Optional(x) }", OPTIONAL),
        ("DynamicQuantizeLinear", "uint8[U,4] y) { y, s, z = DynamicQuantizeLinear(x) }", RANGE),
    ],
)
def test_refused(op, text, reason):
    refused(parse(NEW + f"agraph (float[T,4] x) => ({text}", c=np.ones(5, bool)), reason, op_type=op)


def test_text():
    refused(parse(NEW + "agraph (string[T] x) => (string[U] y) { y = StringConcat(x, x) }"), TEXT)


def test_image():
    refused(parse(NEW + "agraph (uint8[T] x) => (uint8[h,w,3] y) { y = ImageDecoder(x) }"), "compressed image")


def test_loss():
    refused(
        parse("agraph (float[T,4] x, int64[T] t) => (float y) { y = SoftmaxCrossEntropyLoss(x, t) }"), "training loss"
    )


def test_kept_where_nothing_streams():
    check(
        parse("""agraph (float[T,4] x, float[4] v) => (float[U,4] y) {
        q, s, z = DynamicQuantizeLinear(v)
        d = DequantizeLinear(q, s, z)
        y = Add(x, d) }"""),
        axes={"x": 0},
        delays={"y": 0},
    )


def test_unknown_operator():
    refused(
        parse(
            '<ir_version: 8, opset_import: ["": 17, "own": 1]> agraph (float[T,4] x) => (float[U,4] y) { y = '
            "own.Magic(x) }"
        ),
        "no rule knows the operator own:Magic",
    )


def test_refusals_behind_random_numbers():
    refused(
        parse("agraph (float[T,4] x) => (float[U,4] y) { r = RandomNormal<shape=[1,4]>()\n y = Add(x, r) }"),
        RANDOM,
        op_type="RandomNormal",
    )


def test_sequences_where_nothing_streams():
    refused(
        parse(
            "agraph (float[T,4] x, float[4] v) => (float[U,4] y) { s = SequenceConstruct(v, v)\n i = SequenceAt(s, "
            "k)\n y = Add(x, i) }",
            k=np.int64(0),
        ),
        SEQUENCE,
        axes={"x": 0},
        op_type="SequenceConstruct",
    )
