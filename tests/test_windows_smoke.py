from testing.oracle import check, parse, rand


def test_same_stack():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        r = Relu(a)
        y = Conv<pads=[1,1]>(r, w, b) }""",
            w=rand(4, 4, 3),
            b=rand(4),
        ),
        delays={"y": 2},
    )


def test_gru_behind():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[U,1,1,5] y, float[1,1,5] h) {
        a = Conv<pads=[1,1]>(x, w, b)
        t = Transpose<perm=[2,0,1]>(a)
        y, h = GRU<hidden_size=5, linear_before_reset=1>(t, gw, gr, gb) }""",
            w=rand(4, 4, 3),
            b=rand(4),
            gw=rand(1, 15, 4),
            gr=rand(1, 15, 5),
            gb=rand(1, 30),
        ),
        delays={"y": 1},
    )


def test_pools():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y, float[1,4,V] z) {
        b = Conv(x, w)
        y = AveragePool<kernel_shape=[3], pads=[1,1], ceil_mode=1, strides=[2]>(b)
        z = MaxPool<kernel_shape=[3], pads=[1,1]>(b) }""",
            w=rand(4, 4, 3),
        )
    )


def test_deconv():
    check(
        parse(
            """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        b = Conv<pads=[1,1], strides=[2]>(x, w)
        c = ConvTranspose<strides=[2], pads=[1,1]>(b, v, d)
        y = Conv<pads=[1,1]>(c, w) }""",
            w=rand(4, 4, 3),
            v=rand(4, 4, 4),
            d=rand(4),
        )
    )
