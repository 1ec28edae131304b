"""The old pair of files or the new one, whole, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from test_badfiles import SAME, command

from pulsify_onnx.output import atomic, write
from testing import ROOT
from testing.oracle import parse, rand


def convert(out: Path, pulse: int, *more: object, model: Path = SAME, **options) -> subprocess.Popen:
    arguments = [
        sys.executable,
        "-m",
        "pulsify_onnx",
        "convert",
        str(model),
        "-o",
        str(out),
        "--pulse",
        str(pulse),
        *map(str, more),
    ]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finished(run: subprocess.Popen) -> str:
    _, err = run.communicate(timeout=120)
    return err.decode()


def pulse_of(out: Path) -> int:
    """The pulse of a pair; both files must be whole and belong together."""
    model = onnx.load(out)
    onnx.checker.check_model(model)
    spec = json.loads(next(p.value for p in model.metadata_props if p.key == "pulsify.spec"))
    assert json.loads(write.sidecar_path(out).read_text()) == spec
    return spec["pulse"]


def names(folder: Path) -> list[str]:
    return sorted(re.sub("[0-9a-f]{12}", "#", p.name) for p in folder.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An old pair, of pulse 2."""
    assert finished(convert(tmp_path / "out.onnx", 2, "--no-verify")) == ""
    return tmp_path / "out.onnx"


def test_killed_at_random_moments(out: Path):
    start = time.monotonic()
    finished(convert(out, 3))
    whole = time.monotonic() - start
    rng, pulses = random.Random(0), {3}
    for k in range(6):
        run = convert(out, 4 + k)
        time.sleep(rng.uniform(0.3, 1.1) * whole)
        run.kill()
        finished(run)
        pulses.add(4 + k)
        assert pulse_of(out) in pulses and names(out.parent) == ["out.onnx", "out.pulse.json"]


@pytest.mark.parametrize("victim", ["os.getpid()", "os.getppid()"], ids=["worker", "watcher"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_killed_between_two_moves(out: Path, victim, after):
    code = f"""
real, count, watcher = os.replace, 0, os.getpid()
def replace(a, b):
    global count
    if count == {after} and os.getpid() != watcher:
        os.kill({victim}, signal.SIGKILL)
    count += 1
    real(a, b)
    if count == {after} and os.getpid() != watcher:
        os.kill({victim}, signal.SIGKILL)
atomic.os.replace = replace"""
    run = subprocess.Popen(
        command(code, "convert", SAME, "-o", out, "--pulse", 5),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    finished(run)
    assert pulse_of(out) == 5 and names(out.parent) == ["out.onnx", "out.pulse.json"]


def test_what_dead_writers_left_is_swept_and_what_lives_is_not(out: Path):
    dead = out.parent / f"{atomic.prefix(out)}dead"
    dead.mkdir()
    with atomic.folder(out) as living:
        assert not dead.exists()
        with atomic.folder(out):
            assert living.exists()


def test_many_at_once_on_one_target(out: Path):
    for _ in range(2):
        runs = [convert(out, pulse, "--no-verify") for pulse in (4, 5, 6)]
        assert [finished(run) for run in runs] == ["", "", ""]
        assert pulse_of(out) in (4, 5, 6) and names(out.parent) == ["out.onnx", "out.pulse.json"]


@pytest.mark.parametrize("size", [0, 100, 2000])
def test_no_room_for_the_files(out: Path, size):
    run = convert(out, 4, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    err = finished(run)
    assert run.returncode == 2 and "cannot be written" in err and len(err.splitlines()) == 1
    assert pulse_of(out) == 2 and names(out.parent) == ["out.onnx", "out.pulse.json"]


def test_a_full_disk(tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", small], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can mount a small disk")
    try:
        assert (
            finished(convert(small / "out.onnx", 2, "--no-verify", model=ROOT / "fixtures" / "valid_conv.onnx")) == ""
        )
        run = convert(small / "out.onnx", 4, "--end-of-stream", "--no-verify", model=ROOT / "fixtures" / "wavenet.onnx")
        err = finished(run)
        assert run.returncode == 2 and "No space left" in err and len(err.splitlines()) == 1
        assert pulse_of(small / "out.onnx") == 2 and names(small) == ["out.onnx", "out.pulse.json"]
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(out: Path):
    out.parent.chmod(0o500)
    try:
        run = convert(out, 4)
        assert "permission" in finished(run) and run.returncode == 2 and pulse_of(out) == 2
    finally:
        out.parent.chmod(0o700)


def test_the_input_is_never_the_output(tmp_path: Path):
    model = tmp_path / "m.onnx"
    shutil.copy(SAME, model)
    (tmp_path / "link.onnx").symlink_to(model)
    os.link(model, tmp_path / "hard.onnx")
    for target in ("m.onnx", "link.onnx", "hard.onnx", "./m.onnx"):
        run = convert(tmp_path / target, 4, model=model)
        assert "is the input" in finished(run) and run.returncode == 2
    assert model.read_bytes() == SAME.read_bytes() and names(tmp_path) == ["hard.onnx", "link.onnx", "m.onnx"]


@pytest.mark.parametrize("name", ["out.onnx", "out.pulse.json"])
def test_a_folder_stands_in_the_way(tmp_path: Path, name):
    (tmp_path / name).mkdir()
    run = convert(tmp_path / "out.onnx", 4)
    assert "is a directory" in finished(run) and run.returncode == 2 and names(tmp_path) == [name]


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "out.onnx").symlink_to("elsewhere")
    (tmp_path / "out.pulse.json").symlink_to("nowhere")
    assert finished(convert(tmp_path / "out.onnx", 4)) == "" and pulse_of(tmp_path / "out.onnx") == 4
    assert (
        (tmp_path / "elsewhere").read_text() == "precious"
        and not (tmp_path / "out.onnx").is_symlink()
        and not (tmp_path / "nowhere").exists()
    )


def test_weights_of_two_models_never_mix(tmp_path: Path):
    """The file of weights has a name that only its model refers to; that of the model that was replaced goes."""
    model, out = tmp_path / "in" / "m.onnx", tmp_path / "out.onnx"
    model.parent.mkdir()
    conv = parse(
        "agraph (float[1,16,T] x) => (float[1,16,U] y) { y = Conv<pads=[1,1]>(x, w, b) }", w=rand(16, 16, 3), b=rand(16)
    )
    onnx.save(conv, model, save_as_external_data=True, location="m.data", size_threshold=0)
    seen = set()
    for pulse in (2, 4):
        assert finished(convert(out, pulse, model=model)) == "" and pulse_of(out) == pulse
        seen |= {p.name for p in tmp_path.glob("out.onnx.*.data")}
        assert names(tmp_path) == ["in", "out.onnx", "out.onnx.#.data", "out.pulse.json"]
    assert len(seen) == 2
