import pytest

from testing.oracle import check, parse, rand, refused

WEIGHTS = {"w": rand(1, 4, 3), "v": rand(4, 4, 3), "b": rand(4)}


def model(nodes: str, rank: str = "[N]", inputs: str = "", opset: int = 17):
    return parse(
        f"""<ir_version: 8, opset_import: ["": {opset}]>
        agraph (float[N,4,T] x{inputs}) => (float{rank} y) {{ {nodes} }}""",
        **WEIGHTS,
    )


@pytest.mark.parametrize("opset", [12, 17])
def test_of_a_running_value_with_a_symbolic_batch(opset):
    """Which of its sizes are 1 is known, but for the batch, which stays."""
    nodes = "c = Conv<pads=[1,1]>(x, w)\n m = ReduceMax<axes=[2]>(c)\n y = Squeeze(m)"
    assert check(model(nodes, opset=opset), rows=2).spec["outputs"][0]["shape"] == ["N"]


def test_of_a_mean_that_is_taken_away_again():
    nodes = """c = Conv<pads=[1,1]>(x, v, b)
        m = ReduceMean<axes=[2]>(c)
        n = Squeeze(m)
        o = Constant<value_ints=[2]>()
        u = Unsqueeze(n, o)
        d = Sub(c, u)
        s = Mul(d, d)
        y = ReduceMean<axes=[2], keepdims=0>(s)"""
    check(model(nodes, "[N,4]"), rows=2)


def test_of_a_static_input():
    nodes = "o = Constant<value_ints=[2]>()\n s = Squeeze(g)\n u = Unsqueeze(s, o)\n y = Mul(x, u)"
    check(model(nodes, "[N,4,T]", ", float[N,4,1,1] g"), axes={"x": 2}, rows=2)


def test_of_a_batch_that_is_said_to_go():
    nodes = "c = Conv<pads=[1,1]>(x, v, b)\n m = ReduceMax<axes=[2]>(c)\n y = Squeeze(m)"
    refused(model(nodes, "[4]"), "an axis of unknown size goes where its size is 1", op_type="Squeeze")
