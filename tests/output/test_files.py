"""Model and sidecar are written together or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx
import pytest

from pulsify_onnx import UsageError, pulsify, verify
from pulsify_onnx.model import large
from pulsify_onnx.output import write
from testing.oracle import parse, rand

CONV = "agraph (float[1,16,T] x) => (float[1,16,U] y) { y = Conv<pads=[1,1]>(x, w, b) }"


def pulsed(pulse: int = 4):
    return pulsify(parse(CONV, w=rand(16, 16, 3), b=rand(16)), pulse=pulse)


def test_nothing_stays_without_commit(tmp_path: Path):
    out = tmp_path / "out.onnx"
    with write.staged(pulsed().model, pulsed().spec, out) as aside:
        assert aside.model.is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_pair(tmp_path: Path, monkeypatch):
    out = tmp_path / "out.onnx"
    pulsed().save(out)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.atomic, "sync", full)
    with pytest.raises(UsageError, match="No space left"):
        pulsed(8).save(out)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_old_pair_is_replaced(tmp_path: Path):
    out = tmp_path / "out.onnx"
    for pulse in (4, 8):
        pulsed(pulse).save(out)
    assert '"pulse": 8' in (tmp_path / "out.pulse.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "out.pulse.json"]


@pytest.mark.parametrize("name", ["sub", "sub/../gone/out.onnx"])
def test_targets_that_cannot_be(tmp_path: Path, name):
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError):
        pulsed().save(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path):
    (tmp_path / "ro").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="permission"):
        pulsed().save(tmp_path / "ro" / "out.onnx")


def test_external_data_goes_beside_the_model(tmp_path: Path):
    (tmp_path / "in").mkdir()
    model = parse(CONV, w=rand(16, 16, 3), b=rand(16))
    onnx.save(model, tmp_path / "in" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    out = tmp_path / "out.onnx"
    pulsify(tmp_path / "in" / "m.onnx", pulse=4).save(out)
    assert [re.sub("[0-9a-f]{12}", "#", p.name) for p in sorted(tmp_path.iterdir()) if p.is_file()] == [
        "out.onnx",
        "out.onnx.#.data",
        "out.pulse.json",
    ]
    assert verify(tmp_path / "in" / "m.onnx", out).ok


def test_large_weights_leave_the_model_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(write, "INLINE_LIMIT", 100)
    pulsed().save(tmp_path / "out.onnx")
    assert next(tmp_path.glob("out.onnx.*.data")).stat().st_size >= 16 * 16 * 3 * 4
    assert verify(parse(CONV, w=rand(16, 16, 3), b=rand(16)), tmp_path / "out.onnx").ok


def test_large_files_are_read_without_their_weights(tmp_path: Path, monkeypatch):
    model = parse(CONV, w=rand(16, 16, 3), b=rand(16))
    onnx.save(model, tmp_path / "m.onnx")
    pulsify(tmp_path / "m.onnx", pulse=4).save(tmp_path / "inline.onnx")
    monkeypatch.setattr(large, "INLINE_LIMIT", 100)
    monkeypatch.setattr(large, "ALWAYS_INLINE", 100)
    read = large.read_model(tmp_path / "m.onnx")
    assert [t.name for t in read.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL] == [
        "w"
    ] and read.ByteSize() < 1000
    onnx.load_external_data_for_model(read, str(tmp_path))
    for t in read.graph.initializer:
        t.ClearField("data_location")
    assert read == model
    pulsify(tmp_path / "m.onnx", pulse=4).save(tmp_path / "out.onnx")
    assert verify(tmp_path / "m.onnx", tmp_path / "out.onnx").ok
    for size in (0, 1, 50, 500, 3000):
        (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:size])
        with pytest.raises(UsageError):
            pulsify(tmp_path / "cut.onnx", pulse=4)
