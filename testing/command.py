"""The command line inside of a test."""

from __future__ import annotations

import pytest

from pulsify_onnx import cli


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command; there is no traceback whatever the input."""
    with pytest.raises(SystemExit) as done:
        cli.main([str(a) for a in arguments])
        raise SystemExit(0)
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return int(done.value.code or 0), out, err
