"""The pulsed fixtures before a second, independent check, in several runtimes."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import onnx
import pytest

from pulsify_onnx import pulsify
from testing import ROOT, clean_room
from testing.families import FAMILIES

FIXTURES = sorted((ROOT / "fixtures").glob("*.onnx"))
SMALL = [p for p in FIXTURES if p.stem not in ("wavenet", "pixelcnn", "causal_net_dilated")]

NOT_IN_REFERENCE = {
    "biquad_bank": "Scan along another axis than 0",
    "quantized": "DequantizeLinear before opset 19",
    "framing": "STFT of one frame",
}
"""What onnx's reference evaluator does not implement, as its own sources say."""

NOT_IN_OPENVINO = {
    "biquad_bank": "it runs a Scan along another axis than 0 in another way, that of the batch model too"
}


@pytest.fixture(params=[False, True], ids=["endless", "ends"])
def end(request) -> bool:
    return request.param


def made(model: Path, folder: Path, pulse: int | None, end: bool) -> Path:
    pulsify(model, pulse=pulse, end_of_stream=end).save(folder / "out.onnx")
    return folder / "out.onnx"


def test_it_shares_no_code():
    tree = ast.parse((ROOT / "testing" / "clean_room.py").read_text(encoding="utf-8"))
    roots = {name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    roots |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots - {"__future__", "argparse", "json", "re", "sys", "pathlib"} == {
        "numpy",
        "onnx",
        "onnxruntime",
        "openvino",
    }


@pytest.mark.parametrize("pulse", [2, 6, None])
@pytest.mark.parametrize("model", FIXTURES, ids=lambda p: p.stem)
def test_fixtures(model, pulse, end, tmp_path):
    frames, _ = clean_room.check(model, made(model, tmp_path, pulse, end))
    assert frames > 10


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, end, tmp_path):
    onnx.save(FAMILIES[family](), tmp_path / "m.onnx")
    frames, _ = clean_room.check(tmp_path / "m.onnx", made(tmp_path / "m.onnx", tmp_path, 8, end), tolerance=1e-3)
    assert frames > 4


@pytest.mark.parametrize("model", [p for p in SMALL if p.stem not in NOT_IN_REFERENCE], ids=lambda p: p.stem)
def test_the_reference_evaluator_agrees(model, end, tmp_path):
    frames, _ = clean_room.check(model, made(model, tmp_path, 4, end), "reference", longest=60)
    assert frames > 4


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in exp:RuntimeWarning"
)  # it computes the sigmoid of a gate that is shut as 1 / (1 + inf)
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in NOT_IN_REFERENCE])
def test_the_reference_evaluator_agrees_on_families(family, tmp_path):
    onnx.save(FAMILIES[family](), tmp_path / "m.onnx")
    frames, _ = clean_room.check(
        tmp_path / "m.onnx", made(tmp_path / "m.onnx", tmp_path, 8, False), "reference", longest=60, tolerance=1e-3
    )
    assert frames > 4


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed (pip install .[dev])"
)
@pytest.mark.parametrize("model", [p for p in FIXTURES if p.stem not in NOT_IN_OPENVINO], ids=lambda p: p.stem)
def test_openvino_agrees(model, end, tmp_path):
    frames, _ = clean_room.check(model, made(model, tmp_path, 4, end), "openvino", longest=200)
    assert frames > 4


def test_it_sees_what_is_wrong(tmp_path):
    out = made(FIXTURES[0].with_name("same_stack.onnx"), tmp_path, 4, True)
    spec = json.loads(out.with_suffix(".pulse.json").read_text())
    model = onnx.load(out)
    spec["outputs"][0]["delay"] -= 1
    for prop in model.metadata_props:
        if prop.key == "pulsify.spec":
            prop.value = json.dumps(spec)
        if prop.key == "pulsify.delay":
            prop.value = str(spec["outputs"][0]["delay"])
    onnx.save(model, out)
    with pytest.raises(clean_room.Wrong, match="the metadata is not the sidecar"):
        clean_room.check(FIXTURES[0].with_name("same_stack.onnx"), out)
    out.with_suffix(".pulse.json").write_text(json.dumps(spec))
    with pytest.raises(clean_room.Wrong, match="y: error"):
        clean_room.check(FIXTURES[0].with_name("same_stack.onnx"), out)
