"""Broken models from the attack, a few of them; ``make badfiles`` runs thousands. And what a crash of a library
becomes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from testing import ROOT
from testing.oracle import parse
from tools import badfiles

SAME = ROOT / "fixtures" / "same_stack.onnx"


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_broken_models_are_answered_in_one_line(first):
    found = list(badfiles.run(range(first, first + 100), processes=1))
    assert len(found) == 100
    assert not [f"case {f.case}: {f.problem} ({f.line})" for f in found if f.problem]


def command_line(model: onnx.ModelProto, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    onnx.save(model, folder / "m.onnx")
    return subprocess.run(
        check=False,
        args=[
            sys.executable,
            "-m",
            "pulsify_onnx",
            "convert",
            str(folder / "m.onnx"),
            "-o",
            str(folder / "out.onnx"),
            "--pulse",
            "4",
            *options,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_names_with_line_breaks_are_escaped(tmp_path: Path):
    model = parse("agraph (float[1,3,T] x) => (float[1,3,T] y) { y = Relu(x) }")
    model.graph.node[0].op_type, model.graph.node[0].name = "Re\nlu", "one\r\n\x1b[31mtwo"
    done = command_line(model, tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 3 and len(lines) == 4 and lines[3] == "read with time along axis 2 of x"
    assert '"one\\r\\n\\x1b[31mtwo"' in done.stderr


def test_dimensions_beyond_all_measure_take_no_time(tmp_path: Path):
    model = parse(
        """agraph (float[1099511627776,T] x) => (float[1099511627776,T] y) {
        s = Shape<start=0, end=1>(x)
        h = ConstantOfShape(s)
        last, y = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body=step(float[B] p, float[B] f) => (float[B] n, float[B] o) {
            n = Add(p, f)
            u = Unsqueeze(n, at)
            o = Squeeze(u, at) }>(h, x) }""",
        at=np.asarray([0]),
    )
    start = time.monotonic()
    done = command_line(model, tmp_path)
    assert done.returncode in (2, 3) and time.monotonic() - start < 30


def command(code: str, *arguments: object) -> list[str]:
    """A command line that runs `code` in the worker before it starts."""
    modules = (
        "import os, signal\nfrom pulsify_onnx import api, cli\nfrom pulsify_onnx.output import atomic, guard, write\n"
    )
    return [sys.executable, "-c", f"{modules}{code}\ncli.main()", *map(str, arguments)]


def ended(code: str, folder: Path, *, pulse: int = 4, expected: int | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        check=False,
        args=command(code, "convert", SAME, "-o", folder / "out.onnx", "--pulse", pulse),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    if expected is not None:
        assert done.returncode == expected, done.stderr
    return done


@pytest.mark.parametrize("crash", ["os.abort()", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_a_crash_while_verifying(tmp_path: Path, crash):
    done = ended(f"def verify(*_, **__): {crash}\napi.verify = verify", tmp_path, expected=1)
    assert "crashed" in done.stderr and "while verifying" in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_reading(tmp_path: Path):
    done = ended("def load(*_, **__): os.abort()\napi.pulsify = load", tmp_path, expected=2)
    assert "while reading the model" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_pulsed_model_that_cannot_be_run_is_no_fault_of_the_file(tmp_path: Path):
    done = ended(
        """pulsify = api.pulsify
def wrong(*a, **k):
    made = pulsify(*a, **k)
    next(iter(made.model.graph)).op_type = "Nonsense"
    return made
api.pulsify = wrong""",
        tmp_path,
        expected=1,
    )
    assert (
        "the pulsed model cannot be run" in done.stderr
        and len(done.stderr.splitlines()) == 1
        and list(tmp_path.iterdir()) == []
    )


def test_a_killed_worker_says_so(tmp_path: Path):
    done = ended("def load(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\napi.verify = load", tmp_path)
    assert done.returncode in (1, 2) and "memory" in done.stderr and list(tmp_path.iterdir()) == []


def test_words_of_libraries_are_not_shown(tmp_path: Path):
    done = ended(
        "def verify(*_, **__):\n    os.write(2, b'noise'); os.abort()\napi.verify = verify", tmp_path, expected=1
    )
    assert "noise" not in done.stderr


def test_warnings_of_libraries_are_not_shown(tmp_path: Path):
    done = ended(
        """import warnings
pulsify = api.pulsify
def loud(*a, **k):
    warnings.warn('noise', RuntimeWarning)
    return pulsify(*a, **k)
api.pulsify = loud""",
        tmp_path,
        expected=0,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing(tmp_path: Path, number):
    code = (
        f"def verify(*_, **__):\n    open({str(tmp_path / 'ready')!r}, 'w').close()\n    import time; "
        "time.sleep(60)\napi.verify = verify"
    )
    run = subprocess.Popen(
        command(code, "convert", SAME, "-o", tmp_path / "out.onnx", "--pulse", 4),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(run.pid, number)
    _, err = run.communicate(timeout=30)  # the pipes are open as long as the worker lives
    assert b"Traceback" not in err and run.returncode in (128 + number, -number)
    assert [p.name for p in tmp_path.iterdir()] == ["ready"]
