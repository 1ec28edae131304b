"""The command line: options, streams, exit codes, and no traceback whatever the input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from pulsify_onnx import cli
from pulsify_onnx.ort import session
from testing.command import run
from testing.oracle import parse, rand

CONV = "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<pads=[1,1]>(x, w, b) }"
STRIDED = "agraph (float[1,4,T] x) => (float[1,4,U] y) { y = Conv<strides=[3]>(x, w, b) }"
SOFTMAX = "agraph (float[1,4,T] x) => (float[1,4,T] y) { a = Softmax<axis=2>(x)\n y = CumSum<reverse=1>(a, axis) }"


def write(path: Path, text: str, **weights) -> Path:
    weights = weights or {"w": rand(4, 4, 3), "b": rand(4)}
    onnx.save(parse(text, **weights), path)
    return path


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    return write(tmp_path / "conv.onnx", CONV)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom pulsify_onnx.cli import main\n"
        "try: main(['convert', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'onnx', 'onnx_ir', 'onnxruntime', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--end-of-stream" in done.stdout


def test_convert_writes_model_and_sidecar(conv: Path, tmp_path: Path, capfd):
    out = tmp_path / "out.onnx"
    code, stdout, stderr = run(capfd, "convert", conv, "-o", out, "--pulse", 4)
    assert code == 0 and stderr == ""
    assert "delay" in stdout and "verified" in stdout
    spec = json.loads((tmp_path / "out.pulse.json").read_text())
    assert spec["pulse"] == 4 and spec["outputs"][0]["delay"] == 1 and spec["source"]["file"] == "conv.onnx"
    assert json.loads(session(out).get_modelmeta().custom_metadata_map["pulsify.spec"]) == spec
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conv.onnx", "out.onnx", "out.pulse.json"]


BATCH = """agraph (float[A,8,1] x) => (float[A,6,2] y) { t = Transpose<perm=[0,2,1]>(x)
    c = Conv(t, w)
    y = Transpose<perm=[0,2,1]>(c) }"""


def test_time_along_what_looks_like_a_batch_is_told(tmp_path: Path, capfd):
    model, out = write(tmp_path / "m.onnx", BATCH, w=rand(2, 1, 3)), tmp_path / "out.onnx"
    for command in (["convert", model, "-o", out, "--pulse", 4], ["inspect", model], ["inspect", model, "--json"]):
        code, _, stderr = run(capfd, *command)
        assert code == 0 and "axis 0 of x" in stderr and "looks like a batch" in stderr
        code, _, stderr = run(capfd, *command, "--axis", "x=0")
        assert code == 0 and stderr == ""


def test_the_axis_that_was_tried_is_told_with_what_blocks(tmp_path: Path, capfd):
    model = write(tmp_path / "m.onnx", SOFTMAX, axis=np.int32(2))
    for command in (["convert", model, "-o", tmp_path / "out.onnx", "--pulse", 4], ["inspect", model]):
        code, _, stderr = run(capfd, *command)
        assert code == 3 and stderr.endswith("read with time along axis 2 of x\n")


def test_convert_json_is_one_document(conv: Path, tmp_path: Path, capfd):
    code, stdout, _ = run(
        capfd, "convert", conv, "-o", tmp_path / "out.onnx", "--pulse", 4, "--end-of-stream", "--json"
    )
    document = json.loads(stdout)
    assert code == 0 and document["verification"]["ok"] and document["spec"]["flush_pulses"] == 1
    assert document["spec"] == json.loads((tmp_path / "out.pulse.json").read_text())


def test_dynamic_pulse(conv: Path, tmp_path: Path, capfd):
    code, _, _ = run(capfd, "convert", conv, "-o", tmp_path / "out.onnx", "--pulse", "dynamic", "--end-of-stream")
    spec = json.loads((tmp_path / "out.pulse.json").read_text())
    assert code == 0 and spec["pulse"] is None and spec["inputs"][0]["shape"] == [1, 4, None]
    assert run(capfd, "verify", conv, tmp_path / "out.onnx")[0] == 0


def test_same_bytes_twice(conv: Path, tmp_path: Path):
    seen = set()
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pulsify_onnx",
                "convert",
                conv,
                "-o",
                folder / "out.onnx",
                "--pulse",
                "4",
                "--end-of-stream",
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        seen.add((folder / "out.onnx").read_bytes() + (folder / "out.pulse.json").read_bytes())
    assert len(seen) == 1


def test_pulse_that_does_not_fit(tmp_path: Path, capfd):
    code, stdout, stderr = run(
        capfd, "convert", write(tmp_path / "m.onnx", STRIDED), "-o", tmp_path / "out.onnx", "--pulse", 4
    )
    assert code == 4 and stdout == "" and "the smallest is 3" in stderr
    assert run(capfd, "inspect", tmp_path / "m.onnx", "--pulse", 5)[0] == 4


def test_every_blocker_is_named(tmp_path: Path, capfd):
    model = write(
        tmp_path / "m.onnx",
        """agraph (float[1,4,T] x) => (float[1,4,T] y, float[1,4,T] z) {
        y = Softmax<axis=2>(x)
        z = CumSum<reverse=1>(x, axis) }""",
        axis=np.asarray(2),
    )
    code, stdout, stderr = run(capfd, "convert", model, "-o", tmp_path / "out.onnx", "--pulse", 4)
    assert code == 3 and stdout == "" and not (tmp_path / "out.onnx").exists()
    assert (
        'error: cannot stream Softmax "y" (input x)\n  why:  ' in stderr
        and "\n  hint: " in stderr
        and 'CumSum "z"' in stderr
    )
    code, stdout, stderr = run(capfd, "inspect", model, "--json")
    document = json.loads(stdout)
    assert code == 3 and sorted(b["op_type"] for b in document["blockers"]) == ["CumSum", "Softmax"]
    assert (
        all(set(b) == {"node", "op_type", "reason", "hint"} for b in document["blockers"])
        and document["inputs"][0]["name"] == "x"
    )


def test_inspect_batch_and_pulsed(conv: Path, tmp_path: Path, capfd):
    code, stdout, _ = run(capfd, "inspect", conv, "--json", "--frame-rate", 100)
    found = json.loads(stdout)
    assert (
        code == 0
        and found["outputs"][0]["delay_ms"] == 10
        and found["blockers"] == []
        and found["state_bytes"] == sum(s["bytes"] for s in found["states"])
    )
    code, stdout, _ = run(capfd, "inspect", conv, "--frame-rate", 100)
    assert code == 0 and "1 frames = 10 ms" in stdout and max(map(len, stdout.splitlines())) <= 100
    run(capfd, "convert", conv, "-o", tmp_path / "out.onnx", "--pulse", 4)
    code, stdout, _ = run(capfd, "inspect", tmp_path / "out.onnx", "--json")
    assert code == 0 and json.loads(stdout) == json.loads((tmp_path / "out.pulse.json").read_text())
    assert run(capfd, "inspect", tmp_path / "out.onnx")[0] == 0


def test_a_wrong_stream_is_not_written(conv: Path, tmp_path: Path, capfd, monkeypatch):
    from pulsify_onnx.algebra import windows

    monkeypatch.setattr(windows, "border_mask", lambda *_: None)
    stacked = write(
        tmp_path / "m.onnx",
        """agraph (float[1,4,T] x) => (float[1,4,U] y) {
        a = Conv<pads=[1,1]>(x, w, b)
        y = Conv<pads=[1,1]>(a, w, b) }""",
    )
    code, stdout, stderr = run(capfd, "convert", stacked, "-o", tmp_path / "out.onnx", "--pulse", 4)
    assert (
        code == 1
        and stdout == ""
        and "output y differs" in stderr
        and "largest error" in stderr
        and "frame 0" in stderr
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conv.onnx", "m.onnx"]
    assert run(capfd, "convert", stacked, "-o", tmp_path / "out.onnx", "--pulse", 4, "--no-verify")[0] == 0
    code, stdout, stderr = run(capfd, "verify", stacked, tmp_path / "out.onnx", "--json")
    assert code == 1 and json.loads(stdout)["ok"] is False and json.loads(stdout)["output"] == "y"


@pytest.mark.parametrize(
    "axis, code",
    [("x=2", 0), ("x=-1", 0), ("x=T", 0), ("x=7", 2), ("x=Q", 2), ("q=1", 2), ("x", 2), ("x=", 2), ("x=1", 3)],
)
def test_axis(conv: Path, capfd, axis, code):
    assert run(capfd, "inspect", conv, "--axis", axis)[0] == code


@pytest.mark.parametrize("name", ["input/audio:0", "a=b", "a b"])
def test_axis_of_an_oddly_named_input(tmp_path: Path, capfd, name):
    model = parse(CONV, w=rand(4, 4, 3), b=rand(4))
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    onnx.save(model, tmp_path / "m.onnx")
    code, stdout, _ = run(capfd, "inspect", tmp_path / "m.onnx", "--axis", f"{name}=2", "--json")
    assert code == 0 and json.loads(stdout)["inputs"][0]["name"] == name


def test_a_dimension_named_as_time_that_is_none(tmp_path: Path, capfd):
    model = write(tmp_path / "m.onnx", "agraph (float[T,4,N] x) => (float[T,4,N] y) { y = Conv<pads=[2,0]>(x, w, b) }")
    code, stdout, _ = run(capfd, "inspect", model, "--axis", "x=2", "--json")
    document = json.loads(stdout)
    assert code == 0 and document["inputs"][0]["rate"] == [1, 1] and document["states"][0]["shape"][1:] == [4, 2]
    assert (
        run(capfd, "convert", model, "-o", tmp_path / "out.onnx", "--pulse", 4, "--axis", "x=2", "--end-of-stream")[0]
        == 0
    )


def test_two_readings_are_listed(tmp_path: Path, capfd):
    model = write(tmp_path / "m.onnx", "agraph (float[A,B] x) => (float[A,B] y) { y = Relu(x) }")
    code, stdout, stderr = run(capfd, "inspect", model)
    assert code == 2 and stdout == "" and "--axis x=0" in stderr and "--axis x=1" in stderr


def test_unusable_files(conv: Path, tmp_path: Path, capfd):
    out = tmp_path / "out.onnx"
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "cut.onnx").write_bytes(conv.read_bytes()[:60])
    for bad in ("missing.onnx", "empty.onnx", "text.onnx", "cut.onnx", "."):
        for command in (
            ["convert", tmp_path / bad, "-o", out, "--pulse", 4],
            ["inspect", tmp_path / bad],
            ["verify", tmp_path / bad, conv],
        ):
            code, stdout, stderr = run(capfd, *command)
            assert code == 2 and stdout == "" and stderr.startswith("error: ") and len(stderr.splitlines()) == 1, (
                bad,
                stderr,
            )
    assert not out.exists()


def test_unusable_targets(conv: Path, tmp_path: Path, capfd):
    before = conv.read_bytes()
    for target in (conv, tmp_path, tmp_path / "none" / "out.onnx", tmp_path / "other" / ".." / "conv.onnx"):
        (tmp_path / "other").mkdir(exist_ok=True)
        assert run(capfd, "convert", conv, "-o", target, "--pulse", 4)[0] == 2
    assert conv.read_bytes() == before


def test_wrong_usage(conv: Path, tmp_path: Path, capfd):
    for command in (
        [],
        ["nothing"],
        ["convert", conv],
        ["convert", conv, "-o", tmp_path / "o.onnx", "--pulse", "x"],
        ["convert", conv, "-o", tmp_path / "o.onnx", "--pulse", 0],
        ["convert", conv, "-o", tmp_path / "o.onnx", "--pulse", -3],
        ["inspect", conv, "--pulse", 0],
        ["verify", conv, conv],
    ):
        assert run(capfd, *command)[0] == 2, command


def test_a_bug_is_one_line(conv: Path, capfd, monkeypatch):
    from pulsify_onnx import api

    def broken(*_, **__):
        raise RuntimeError("boom\nboom")

    monkeypatch.setattr(api, "inspect", broken)
    code, _, stderr = run(capfd, "inspect", conv)
    assert code == 2 and len(stderr.splitlines()) == 1 and "boom" in stderr and "report" in stderr
    monkeypatch.setenv("PULSIFY_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli.main(["inspect", str(conv)])
