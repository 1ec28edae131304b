"""--batch: a model exported for one stream takes a batch of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from test_states import cached, gru, lstm, stacked

from pulsify_onnx.api import pulsify, verify
from pulsify_onnx.errors import CannotStream
from testing import ROOT
from testing.oracle import parse, rand

FIXTURES = ROOT / "fixtures"


@pytest.mark.parametrize("name", ["causal_net", "same_gru", "same_stack"])
@pytest.mark.parametrize("batch", ["dynamic", 3])
@pytest.mark.parametrize("end", [False, True])
def test_fixtures_by_rows(name: str, batch: int | str, end: bool):
    model = onnx.load(FIXTURES / f"{name}.onnx")
    pulsed = pulsify(model, pulse=4, end_of_stream=end, batch=batch)
    rows = "batch" if batch == "dynamic" else batch
    assert pulsed.spec["valid_frames_shape"] == [rows] and pulsed.spec["source_batch"] == 1
    assert all(e["shape"][0] == rows for e in (*pulsed.spec["inputs"], *pulsed.spec["states"]))
    assert all(rows in o["shape"] for o in pulsed.spec["outputs"])
    found = verify(model, pulsed)
    assert found.ok, found.message


def reshaped(target: list[int], back: list[int]) -> onnx.ModelProto:
    return parse(
        """agraph (float[1,4,T] x) => (float[1,4,T] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        r = Reshape(a, target)
        s = Sigmoid(r)
        z = Reshape(s, back)
        y = Conv<pads=[1,1]>(z, w, b) }""",
        w=rand(4, 4, 3),
        b=rand(4),
        target=np.asarray(target, np.int64),
        back=np.asarray(back, np.int64),
    )


def test_reshape_to_a_batch_of_one():
    model = reshaped([1, 2, 2, -1], [1, 4, -1])
    assert verify(model, pulsify(model, pulse=3, end_of_stream=True, batch="dynamic")).ok


def test_recurrence_along_the_first_axis():
    model = parse(
        """agraph (float[T,1,4] x) => (float[T,1,1,5] y) { y = GRU<hidden_size=5>(x, wi, wr, wb, , h0) }""",
        wi=rand(1, 15, 4),
        wr=rand(1, 15, 5, seed=1),
        wb=rand(1, 30, seed=2),
        h0=rand(1, 1, 5, seed=3),
    )
    zeros = parse(
        """agraph (float[T,1,4] x) => (float[T,1,1,5] y) { y = GRU<hidden_size=5>(x, wi, wr, wb, , h0) }""",
        wi=rand(1, 15, 4),
        wr=rand(1, 15, 5, seed=1),
        wb=rand(1, 30, seed=2),
        h0=np.zeros((1, 1, 5), np.float32),
    )
    for m in (model, zeros):
        pulsed = pulsify(m, pulse=3, batch="dynamic")
        assert ["batch", 1, 5] in [s["shape"] for s in pulsed.spec["states"]]
        found = verify(m, pulsed)
        assert found.ok, found.message


def test_what_mixes_rows_is_refused_by_name():
    model = parse(
        "agraph (float[1,4,T] x) => (float[1,4,T] y) { m = ReduceMean<axes=[0], keepdims=1>(x)\n y = Sub(x, m) }"
    )
    with pytest.raises(CannotStream) as caught:
        pulsify(model, pulse=4, batch="dynamic")
    assert [b.node for b in caught.value.blockers] == ["m"] and "rows of a batch" in caught.value.blockers[0].reason


def test_inputs_without_a_batch_of_one():
    with pytest.raises(CannotStream, match="its dimension 0, where a batch would be, is 2, not 1"):
        pulsify(parse("agraph (float[2,4,T] x) => (float[2,4,T] y) { y = Relu(x) }"), pulse=4, batch="dynamic")


@pytest.mark.parametrize("batch", [3, "dynamic"])
def test_a_model_that_takes_any_number_of_rows(batch: int | str):
    model = reshaped([0, 2, 2, -1], [0, 4, -1])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    pulsed = pulsify(model, pulse=3, end_of_stream=True, axes={"x": 2}, batch=batch)
    assert pulsed.spec["valid_frames_shape"] == ["N" if batch == "dynamic" else 3] and "source_batch" not in pulsed.spec
    assert verify(model, pulsed).ok
    with pytest.raises(CannotStream, match="rows of a batch"):
        pulsify(
            parse(
                "agraph (float[N,4,T] x) => (float[N,4,T] y) { m = ReduceMean<axes=[0], keepdims=1>(x)\n y = "
                "Sub(x, m) }"
            ),
            pulse=3,
            axes={"x": 2},
            batch=3,
        )


def test_a_batch_of_one_is_no_batch():
    model = onnx.load(FIXTURES / "same_stack.onnx")
    assert pulsify(model, pulse=4, batch=1).proto() == pulsify(model, pulse=4).proto()


@pytest.mark.parametrize("batch", [3, "dynamic"])
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize(
    "model, states, axes",
    [
        (stacked(), {"h0": "hn"}, [1]),
        (lstm(), {"h0": "hn", "c0": "cn"}, [1, 1]),
        (cached(), {"in_cache": "out_cache"}, [0]),
    ],
)
def test_states_of_the_source(
    model: onnx.ModelProto, states: dict[str, str], axes: list[int], end: bool, batch: int | str
):
    """Each row has its own, on the axis that the graph has it on; a row that starts anew begins with its own."""
    pulsed = pulsify(model, pulse=3, end_of_stream=end, states=states, batch=batch)
    own = [s for s in pulsed.spec["states"] if s["role"] == "source"]
    assert [(s["input"], s["row_axis"]) for s in own] == list(zip(states, axes))
    assert all(s["shape"][s["row_axis"]] == (3 if batch == 3 else "batch") for s in own)
    found = verify(model, pulsed)
    assert found.ok, found.message


def test_a_state_for_any_number_of_rows():
    model = gru()
    for value in (*model.graph.input[:1], *model.graph.output[:1]):
        value.type.tensor_type.shape.dim[-2].dim_value = 1
    pulsed = pulsify(model, pulse=3, axes={"x": 0}, states={"h0": "h1"}, batch=3)
    assert pulsed.spec["states"][0]["shape"] == [1, 3, 4] and pulsed.spec["states"][0]["row_axis"] == 1
    assert verify(model, pulsed).ok
