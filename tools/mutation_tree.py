"""A copy of the tree that is broken on purpose, and the tests nearest to a file of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("pulsify_onnx", "testing", "tests", "tools", "fixtures")
SLOW = 124
"""Exit code of tests that took too long."""


class Tree:
    """A copy of a tree in a folder of its own, while it is open."""

    def __init__(self, root: Path, parts: Sequence[str] = PARTS) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mutant-")
        self.root = Path(self._folder.name)
        for part in parts:
            shutil.copytree(root / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        if (root / "pyproject.toml").exists():
            shutil.copy(root / "pyproject.toml", self.root)
        self.environment = {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def text(self, file: str) -> str:
        """The text of a file."""
        return (self.root / file).read_text(encoding="utf-8")

    def change(self, file: str, text: str) -> None:
        """Write a file."""
        (self.root / file).write_text(text, encoding="utf-8")

    def tests(self, tests: Sequence[str], seconds: float = 1800) -> tuple[int, str]:
        """The exit code of pytest up to the first failure (`SLOW` where the time is over), and the test that failed."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            run = subprocess.run(
                command,
                cwd=self.root,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return SLOW, "too slow"
        return run.returncode, next(
            (line.split(" ")[1] for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), ""
        )


def nearest(root: Path, package: str, file: str, most: int) -> list[str]:
    """Tests of a file of `package`, the nearest first: those of its name, those that import it, then those of the
    modules that do, and so on.
    """
    tests = sorted((root / "tests").rglob("test_*.py"))
    sources = {path: path.read_text(encoding="utf-8") for path in [*(root / package).rglob("*.py"), *tests]}
    found: dict[Path, None] = {}
    seen, level = {root / package / file}, [root / package / file]
    while level and len(found) < most:
        for path in level:
            found |= dict.fromkeys(
                t for t in tests if t.stem == f"test_{path.stem}" or t.stem.startswith(f"test_{path.stem}_")
            )
        uses = {
            path: sum(_uses(text, _module(root, other)) for other in level)
            for path, text in sources.items()
            if path not in seen
        }
        readers = sorted((path for path, count in uses.items() if count), key=lambda path: (-uses[path], path.stem))
        found |= dict.fromkeys(path for path in readers if path in tests)
        level = [path for path in readers if path not in tests]
        seen |= set(readers)
    return [str(t.relative_to(root)) for t in found][:most]


def _module(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _uses(text: str, module: str) -> int:
    """How often a text has names that it imports from a module, or the module's own."""
    lists = re.findall(rf"^from {re.escape(module)} import \(?([^)\n]*(?:\n[^)]*)?)\)?$", text, re.MULTILINE)
    names = {name.split()[-1] for found in lists for name in found.replace("\n", " ").split(",") if name.split()}
    package, _, stem = module.rpartition(".")
    names |= (
        set(re.findall(rf"^from {re.escape(package)} import (?:.*, )?{stem}(?: as (\w+))?\b", text, re.MULTILINE))
        if package
        else set()
    )
    return sum(len(re.findall(rf"\b{re.escape(name)}\b", text)) for name in names if name) + (
        f"from {package} import {stem}" in text
    )
