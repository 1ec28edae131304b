import numpy as np

from testing.oracle import check, parse, rand, refused

HOP, LENGTH = np.array(4), np.array(12)


def taper(n=12):
    return np.hanning(n + 1)[:n].astype(np.float32)


def test_stft_with_a_window():
    check(
        parse("""agraph (float[1,T,1] x) => (float[1,U,7,2] y) { y = STFT(x, hop, w) }""", hop=HOP, w=taper()),
        delays={"y": 2},
    )


def test_stft_two_sided_without_a_window():
    check(
        parse(
            """agraph (float[1,T,1] x) => (float[1,U,12,2] y) { y = STFT<onesided=0>(x, hop, , length) }""",
            hop=HOP,
            length=LENGTH,
        ),
        delays={"y": 2},
    )


def test_stft_behind_a_delay():
    check(
        parse(
            """agraph (float[1,1,T] x) => (float[1,U,7,2] y) {
        a = Conv<pads=[2,2]>(x, v, b)
        t = Transpose<perm=[0,2,1]>(a)
        y = STFT(t, hop, w, length) }""",
            hop=HOP,
            w=taper(),
            length=LENGTH,
            v=rand(1, 1, 5),
            b=rand(1),
        ),
        delays={"y": 3},
    )


def test_stft_centred_by_reflection():
    check(
        parse(
            """agraph (float[1,1,T] x) => (float[1,U,7,2] y) {
        a = Conv<pads=[1,1]>(x, v, b)
        p = Pad<mode="reflect">(a, pads)
        t = Transpose<perm=[0,2,1]>(p)
        y = STFT(t, hop, w, length) }""",
            hop=HOP,
            w=taper(),
            length=LENGTH,
            v=rand(1, 1, 3),
            b=rand(1),
            pads=np.array([0, 0, 6, 0, 0, 6]),
        ),
        delays={"y": 1},
    )


def test_stft_of_a_window_made_in_the_graph_then_mel():
    check(
        parse(
            """agraph (float[1,T,1] x) => (float[1,U,6] y) {
        w = HannWindow(length)
        s = STFT(x, hop, w)
        p = ReduceSumSquare<axes=[3], keepdims=0>(s)
        m = MelWeightMatrix(mels, length, rate, low, high)
        y = MatMul(p, m) }""",
            hop=HOP,
            length=LENGTH,
            mels=np.array(6),
            rate=np.array(8000),
            low=np.array(0, np.float32),
            high=np.array(4000, np.float32),
        ),
        delays={"y": 2},
    )


def test_stft_of_a_batch_that_streams():
    check(
        parse("""agraph (float[T,16,1] x) => (float[T,2,7,2] y) { y = STFT(x, hop, w) }""", hop=HOP, w=taper()),
        axes={"x": 0},
        delays={"y": 0},
    )


def test_dft_of_frames():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,U,3,2] y) {
        a = Conv<pads=[1,1]>(x, v, b)
        t = Transpose<perm=[0,2,1]>(a)
        u = Unsqueeze(t, three)
        y = DFT<axis=2, onesided=1>(u) }""",
            v=rand(4, 4, 3),
            b=rand(4),
            three=np.array([3]),
        ),
        delays={"y": 1},
    )


def test_dft_of_opset_20():
    check(
        parse(
            """<ir_version: 9, opset_import: ["": 20]>
        agraph (float[1,T,6,1] x) => (float[1,T,8,2] y) { y = DFT(x, length, axis) }""",
            length=np.array(8),
            axis=np.array(2),
        ),
        delays={"y": 0},
    )


def test_dft_over_the_stream_is_refused():
    refused(
        parse("""agraph (float[1,T,1] x) => (float[1,T,2] y) { y = DFT<axis=1>(x) }"""),
        "transforms the whole stream at once",
        op_type="DFT",
    )


def test_stft_hop_at_run_time_is_refused():
    refused(
        parse("""agraph (float[1,T,1] x, int64 hop) => (float[1,U,7,2] y) { y = STFT(x, hop, w) }""", w=taper()),
        "the hop is computed at run time",
        op_type="STFT",
        axes={"x": 1},
    )


def test_window_of_the_length_of_the_stream_is_refused():
    refused(
        parse(
            """agraph (float[1,T] x) => (float[1,T] y) {
        s = Shape(x)
        n = Gather(s, one)
        w = HannWindow(n)
        y = Mul(x, w) }""",
            one=np.array(1),
        ),
        "its size follows the length",
        op_type="HannWindow",
    )
