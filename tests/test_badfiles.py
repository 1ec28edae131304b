"""Broken models from the attack, a few of them; ``make badfiles`` runs thousands. And what a crash of a library becomes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import badfiles

ROOT = Path(__file__).resolve().parent.parent
SAME = ROOT / "fixtures" / "same_stack.onnx"


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_broken_models_are_answered_in_one_line(first):
    found = list(badfiles.run(range(first, first + 100), processes=1))
    assert len(found) == 100
    assert not [f"case {f.case}: {f.problem} ({f.line})" for f in found if f.problem]


def command(code: str, *arguments: object) -> list[str]:
    """A command line that runs `code` in the worker before it starts."""
    return [sys.executable, "-c", f"import os, signal\nfrom pulsify_onnx import api, cli, files, guard, staging\n{code}\ncli.main()", *map(str, arguments)]


def ended(code: str, folder: Path, *, pulse: int = 4, expected: int | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(code, "convert", SAME, "-o", folder / "out.onnx", "--pulse", pulse), capture_output=True, text=True, timeout=120, cwd=ROOT)
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


def test_a_killed_worker_says_so(tmp_path: Path):
    done = ended("def load(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\napi.verify = load", tmp_path)
    assert done.returncode in (1, 2) and "memory" in done.stderr and list(tmp_path.iterdir()) == []


def test_words_of_libraries_are_not_shown(tmp_path: Path):
    done = ended("def verify(*_, **__):\n    os.write(2, b'noise'); os.abort()\napi.verify = verify", tmp_path, expected=1)
    assert "noise" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing(tmp_path: Path, number):
    code = f"def verify(*_, **__):\n    open({str(tmp_path / 'ready')!r}, 'w').close()\n    import time; time.sleep(60)\napi.verify = verify"
    run = subprocess.Popen(command(code, "convert", SAME, "-o", tmp_path / "out.onnx", "--pulse", 4), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(run.pid, number)
    _, err = run.communicate(timeout=30)  # the pipes are open as long as the worker lives
    assert b"Traceback" not in err and run.returncode in (128 + number, -number)
    assert [p.name for p in tmp_path.iterdir()] == ["ready"]
