"""What README and the pages show is what the commands print, and their Python runs; every link leads somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pulsify_onnx import cli
from testing import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES = 220
"""Of README: one or two screens."""

NOT_RUN = {"README.md": {"python3"}, "CONTRIBUTING.md": {"make", "mkdir"}}
"""What sets up a checkout or takes long."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of the code on a page."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def told(text: str) -> str:
    """What is printed, but for the size of an error, which follows the processor."""
    return re.sub(r"error \S+", "error", text.strip())


def run(text: str, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command and what it prints; on stderr, where it fails."""
    line, _, shown = text.partition("\n")
    words = shlex.split(line.removeprefix("$ "))
    if words[0] in NOT_RUN.get(page.name, ()):
        return
    assert words[0] == "pulsify-onnx", f"{page.name}: {line}"
    try:
        cli.main(words[1:])
        code = 0
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    printed = capsys.readouterr()
    assert told(printed.err if code else printed.out) == told(shown), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """All code of a page, in its order, in one folder with the fixtures."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    names = {"x": np.zeros((1, 4, 40), np.float32)}
    for language, text in blocks(page):
        if language == "console":
            run(text, page, capsys)
        elif language == "python":
            exec(compile(text, page.name, "exec"), names)
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), 0)
            result = doctest.DocTestRunner().run(test, clear_globs=False)
            names.update(test.globs)
            assert result.attempted and not result.failed, capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path):
    for path in re.findall(
        r"`((?:pulsify_onnx|testing|tests|tools|docs|examples|benchmarks|fixtures)/[\w/.]+)`",
        page.read_text(encoding="utf-8"),
    ):
        assert (ROOT / path).exists(), path


def test_every_page_is_in_readme():
    readme = PAGES[0].read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= MOST_LINES
    assert all(str(page.relative_to(ROOT)) in readme for page in PAGES[1:])


def test_every_command_and_option_is_documented():
    text = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    for name, command in cli.cli.commands.items():
        assert f"pulsify-onnx {name}" in text and f"## Options of `{name}`" in text
        for option in (o for p in command.params for o in p.opts if o.startswith("--")):
            assert option in text, option
