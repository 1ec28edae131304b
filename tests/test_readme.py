"""What README shows is what the commands print."""

from __future__ import annotations

import re
import shlex

import pytest

from pulsify_onnx import cli
from testing import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = [(found[1], found[2]) for found in re.finditer(r"```console\n\$ pulsify-onnx ([^\n]*)\n(.*?)```", README, re.DOTALL)]


@pytest.mark.parametrize("command, shown", EXAMPLES, ids=[command.split()[0] for command, _ in EXAMPLES])
def test_examples(command, shown, tmp_path, monkeypatch, capsys):
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    cli.main(shlex.split(command))
    printed = capsys.readouterr().out
    assert re.sub(r"error \S+", "error", printed.strip()) == re.sub(r"error \S+", "error", shown.strip())


def test_every_command_and_option_is_documented():
    for name in cli.cli.commands:
        assert f"pulsify-onnx {name}" in README
    for option in (o for p in cli.cli.commands["convert"].params for o in p.opts if o.startswith("--")):
        assert option in README or option in ("--output",), option
