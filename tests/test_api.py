"""The public surface, and what the functions give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import pulsify_onnx
from testing.oracle import parse, rand

CONV = "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1]>(x, w, b) }"


def conv() -> onnx.ModelProto:
    return parse(CONV, w=rand(4, 4, 3), b=rand(4))


def test_exported_names():
    assert set(pulsify_onnx.__all__) == {
        "AmbiguousAxis",
        "Analysis",
        "BatchSession",
        "Blocker",
        "CannotStream",
        "ConvertOptions",
        "InvalidModel",
        "PulseDoesNotFit",
        "PulsedModel",
        "PulsifyError",
        "Report",
        "StreamSession",
        "UsageError",
        "Verification",
        "VerificationFailed",
        "__version__",
        "analyze",
        "inspect",
        "pulsify",
        "verify",
    }
    for name in pulsify_onnx.__all__:
        assert getattr(pulsify_onnx, name) is not None
    with pytest.raises(AttributeError):
        _ = pulsify_onnx.nothing


@pytest.mark.parametrize("name", ["analyze", "inspect", "pulsify", "verify"])
def test_functions_are_not_hidden_by_modules(name):
    """A submodule of the same name would take the function's place once it is imported."""
    code = f"import pulsify_onnx.cli, pulsify_onnx.api, pulsify_onnx; assert callable(pulsify_onnx.{name})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    code = "import sys, pulsify_onnx; assert not {'onnx', 'onnx_ir', 'onnxruntime', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_save_and_verify(tmp_path: Path):
    pulsed = pulsify_onnx.pulsify(conv(), pulse=4, end_of_stream=True)
    pulsed.save(tmp_path / "out.onnx")
    assert json.loads((tmp_path / "out.pulse.json").read_text()) == pulsed.spec
    assert (
        json.loads({p.key: p.value for p in onnx.load(tmp_path / "out.onnx").metadata_props}["pulsify.spec"])
        == pulsed.spec
    )
    found = pulsify_onnx.verify(conv(), tmp_path / "out.onnx")
    assert found.ok and found.compared > 0


def test_analyze_builds_nothing_and_reports_blockers():
    plan = pulsify_onnx.analyze(parse("agraph (float[1,4,T] x) => (float[1,4,T] y) { y = Softmax<axis=2>(x) }"))
    assert [b.op_type for b in plan.blockers] == ["Softmax"]


def test_inspect_of_a_batch_and_of_a_pulsed_model(tmp_path: Path):
    found = pulsify_onnx.inspect(conv()).document
    assert found["pulse"] == 1 and found["blockers"] == [] and found["outputs"][0]["delay"] == 1
    pulsed = pulsify_onnx.pulsify(conv(), pulse=4)
    pulsed.save(tmp_path / "out.onnx")
    assert pulsify_onnx.inspect(tmp_path / "out.onnx").document == pulsed.spec


def test_the_source_keeps_its_metadata():
    model = conv()
    model.metadata_props.add(key="author", value="me")
    props = {p.key: p.value for p in pulsify_onnx.pulsify(model, pulse=4).proto().metadata_props}
    assert props["author"] == "me" and props["pulsify.delay"] == "1" and props["pulsify.pulse"] == "4"


def test_a_dynamic_pulse_takes_any_size():
    pulsed = pulsify_onnx.pulsify(conv(), pulse=None)
    assert pulsed.spec["pulse"] is None and pulsed.spec["outputs"][0]["frames_per_pulse"] is None
    stream = pulsify_onnx.StreamSession(pulsed)
    x = rand(1, 4, 20)
    got = [stream.push(x[..., a:b]) for a, b in [(0, 1), (1, 8), (8, 8), (8, 20)]]
    assert [g.shape[2] for g in got] == [0, 7, 0, 12]
    whole = pulsify_onnx.ort.session(conv().SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(np.concatenate(got, 2), whole[..., :19], atol=1e-5)


def test_pulse_that_does_not_fit():
    model = parse("agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<strides=[3]>(x, w) }", w=rand(4, 4, 3))
    with pytest.raises(pulsify_onnx.PulseDoesNotFit) as caught:
        pulsify_onnx.pulsify(model, pulse=4)
    assert caught.value.smallest == 3


def test_weights_outside_of_the_model_file_in_memory(tmp_path, monkeypatch):
    """A pulsed model that is not saved yet finds the weights of its source, wherever the process is."""
    source = parse(
        "agraph (float[1,64,T] x) => (float[1,64,T] y) { y = Conv<pads=[1,1]>(x, w, b) }", w=rand(64, 64, 3), b=rand(64)
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "model" / "m.onnx"
    onnx.save(source, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path / "elsewhere")
    pulsed = pulsify_onnx.pulsify(path, pulse=4)
    assert pulsify_onnx.verify(path, pulsed).ok
    assert pulsify_onnx.StreamSession(pulsed).push(np.zeros([1, 64, 8], np.float32)).shape == (1, 64, 7)
