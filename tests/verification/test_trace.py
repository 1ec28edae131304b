"""``verify --trace``, ``--input`` and ``--save``: where a stream goes wrong first, and on which data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from pulsify_onnx import UsageError, pulsify, verify
from pulsify_onnx.algebra import windows
from pulsify_onnx.api import trace
from pulsify_onnx.verification import recordings
from pulsify_onnx.verification.check import Case
from testing.command import run
from testing.families import FAMILIES
from testing.oracle import parse, rand
from testing.quantised import network as quantised_network

STACK = """agraph (float[1,3,T] x) => (float[1,3,U] y) {
    a = Conv<pads=[1,1]>(x, w, b)
    c = Relu(a)
    d = Conv<pads=[1,1]>(c, w, b)
    e = Abs(d)
    y = Conv<pads=[1,1]>(e, w, b) }"""


def stack() -> onnx.ModelProto:
    return parse(STACK, w=rand(3, 3, 3), b=rand(3))


def changed(path: Path, out: Path, node: str) -> None:
    """The pulsed model at `path` with the weights of one node changed, as `out`."""
    model = onnx.load(path)
    conv = next(n for n in model.graph.node if n.name == node)
    weights = next(t for t in model.graph.initializer if t.name == conv.input[1])
    other = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * np.float32(1.5), "other")
    model.graph.initializer.append(other)
    conv.input[1] = "other"
    onnx.save(model, out)


@pytest.mark.parametrize("node, agreeing", [("a", 0), ("d", 2), ("y", 4)])
@pytest.mark.parametrize("pulse", [1, 4, None])
@pytest.mark.parametrize("end", [False, True])
def test_the_first_node_that_differs(tmp_path: Path, node, agreeing, pulse, end):
    pulsify(stack(), pulse=pulse, end_of_stream=end).save(tmp_path / "right.onnx")
    changed(tmp_path / "right.onnx", tmp_path / "wrong.onnx", node)
    found = verify(stack(), tmp_path / "wrong.onnx")
    first = trace(stack(), tmp_path / "wrong.onnx", found)
    assert (
        first is not None
        and (first.node, first.op_type, first.wire, first.frame) == (node, "Conv", node, 0)
        and first.agreeing == agreeing
    )
    assert first.index[2] == first.frame and abs(first.stream - first.batch) > 1e-3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_signed_integers_that_are_carried_unsigned_are_no_difference(seed):
    model = quantised_network(seed, kind="int8")
    pulsed = pulsify(model, pulse=4)
    assert any(t.data_type == onnx.TensorProto.UINT8 for t in pulsed.proto().graph.initializer), (
        "nothing is carried unsigned"
    )
    assert trace(model, pulsed, verify_with(verify(model, pulsed), random_case(pulsed))) is None


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("end", [False, True])
def test_no_false_alarm(name, end):
    model = FAMILIES[name]()
    pulsed = pulsify(model, pulse=4, end_of_stream=end)
    found = verify(model, pulsed)
    assert found.ok and found.case is None and trace(model, pulsed, found) is None
    assert trace(model, pulsed, verify_with(found, random_case(pulsed))) is None


def random_case(pulsed, frames: int = 400) -> Case:
    rng = np.random.default_rng(0)
    inputs = {
        i["name"]: rng.standard_normal(
            [
                frames * i["rate"][0] // i["rate"][1] if k == i.get("axis") else 1 if isinstance(d, str) else d
                for k, d in enumerate(i["shape"])
            ]
        ).astype(i["dtype"])
        for i in pulsed.spec["inputs"]
    }
    return Case(frames, inputs, {}, {})


def verify_with(found, case: Case):
    from dataclasses import replace

    return replace(found, case=case)


def test_a_wrong_mask_is_traced_to_the_layer_that_lost_it(monkeypatch):
    monkeypatch.setattr(windows, "border_mask", lambda *_: None)
    pulsed = pulsify(stack(), pulse=4)
    found = verify(stack(), pulsed)
    first = trace(stack(), pulsed, found)
    assert not found.ok and first is not None and first.node == "d" and first.frame == 0


def test_command_line(tmp_path: Path, capfd):
    onnx.save(stack(), tmp_path / "m.onnx")
    pulsify(tmp_path / "m.onnx", pulse=4, end_of_stream=True).save(tmp_path / "right.onnx")
    changed(tmp_path / "right.onnx", tmp_path / "wrong.onnx", "d")
    code, out, err = run(
        capfd, "verify", tmp_path / "m.onnx", tmp_path / "wrong.onnx", "--trace", "--save", tmp_path / "case"
    )
    assert (
        code == 1 and 'first node that differs is Conv "d" (output d) at frame 0' in out and len(err.splitlines()) == 1
    )
    report = json.loads((tmp_path / "case" / "report.json").read_text())
    assert report["trace"]["node"] == "d" and report["ok"] is False
    # the saved case shows the difference again, and none in the right model
    case = tmp_path / "case" / "inputs.npz"
    code, out, _ = run(
        capfd, "verify", tmp_path / "m.onnx", tmp_path / "wrong.onnx", "--input", case, "--trace", "--json"
    )
    again = json.loads(out)
    assert code == 1 and again["trace"]["node"] == "d" and again["lengths"] == [np.load(case)["x"].shape[2]]
    code, out, _ = run(
        capfd,
        "verify",
        tmp_path / "m.onnx",
        tmp_path / "right.onnx",
        "--input",
        f"x={case}",
        "--trace",
        "--save",
        tmp_path / "none",
    )
    assert code == 0 and "agree" in out and not (tmp_path / "none").exists()
    with np.load(tmp_path / "case" / "stream.npz") as stream, np.load(tmp_path / "case" / "batch.npz") as batch:
        assert stream["y"].shape[2] >= batch["y"].shape[2]


def test_recorded_inputs(tmp_path: Path, capfd):
    onnx.save(stack(), tmp_path / "m.onnx")
    pulsify(tmp_path / "m.onnx", pulse=4, end_of_stream=True).save(tmp_path / "p.onnx")
    np.save(tmp_path / "x.npy", rand(1, 3, 37))
    np.save(tmp_path / "narrow.npy", rand(1, 2, 37))
    np.save(tmp_path / "text.npy", np.asarray(["a"]))
    (tmp_path / "no.npy").write_text("not numpy")
    command = ["verify", tmp_path / "m.onnx", tmp_path / "p.onnx", "--input"]
    code, out, _ = run(capfd, *command, f"x={tmp_path / 'x.npy'}")
    assert code == 0 and "lengths 37" in out
    for given in (
        f"x={tmp_path / 'gone.npy'}",
        f"q={tmp_path / 'x.npy'}",
        f"x={tmp_path / 'narrow.npy'}",
        f"x={tmp_path / 'text.npy'}",
        f"x={tmp_path / 'no.npy'}",
        tmp_path / "x.npy",
    ):
        code, out, err = run(capfd, *command, given)
        assert code == 2 and out == "" and len(err.splitlines()) == 1, given
    pulsify(tmp_path / "m.onnx", pulse=4).save(tmp_path / "p.onnx")
    assert "needs more than" in run(capfd, *command, f"x={tmp_path / 'x.npy'}")[2]


def test_recordings_by_name(tmp_path: Path):
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.ones(3))
    assert set(recordings.read_recordings([str(tmp_path / "two.npz")])) == {"a", "b"}
    assert recordings.read_recordings([f"b={tmp_path / 'two.npz'}"])["b"].shape == (3,)
    for wrong in ([f"c={tmp_path / 'two.npz'}"], [str(tmp_path / "two.npz"), f"a={tmp_path / 'two.npz'}"]):
        with pytest.raises(UsageError):
            recordings.read_recordings(wrong)
