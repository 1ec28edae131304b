"""The same input, options and versions give the same bytes: in another process, another folder, again in this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from pulsify_onnx import pulsify
from testing import ROOT
from testing.families import FAMILIES

PROGRAM = """
import sys
from pathlib import Path
from pulsify_onnx import pulsify
for model in sorted(Path("models").glob("*.onnx")):
    for pulse in (8, None):
        pulsify(model, pulse=pulse, end_of_stream=True).save(Path("out") / f"{model.stem}_{pulse}.onnx")
"""


def written(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "out").iterdir()}


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("first"), "0")


def made(folder: Path, seed: str) -> Path:
    (folder / "models").mkdir()
    (folder / "out").mkdir()
    for name, make in FAMILIES.items():
        onnx.save(make(), folder / "models" / f"{name}.onnx")
    for path in (ROOT / "fixtures").glob("*.onnx"):
        shutil.copy(path, folder / "models" / path.name)
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
    )
    return folder


def test_another_hash_seed_and_another_folder(once: Path, tmp_path: Path):
    (tmp_path / "deep er").mkdir()
    first, second = written(once), written(made(tmp_path / "deep er", "12345"))
    assert len(first) == 4 * len(list((once / "models").iterdir()))
    assert {name for name in first if first[name] != second[name]} == set()


def test_twice_in_one_process(once: Path, tmp_path: Path):
    first = written(once)
    for path in sorted((once / "models").iterdir()):
        for name in (f"{path.stem}_8.onnx", f"{path.stem}_8.onnx"):
            pulsify(path, pulse=8, end_of_stream=True).save(tmp_path / name)
            assert (tmp_path / name).read_bytes() == first[name], name
