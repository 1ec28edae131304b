"""Writing a pulsed model: model, sidecar and external data appear together, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from pulsify_onnx.errors import UsageError

INLINE_LIMIT = 1 << 30
"""Weights of more bytes than this leave the model file: protobuf cannot hold 2 GB."""


def sidecar_path(out: Path) -> Path:
    """Where the sidecar of a pulsed model stands."""
    return out.with_suffix(".pulse.json")


def check_target(out: Path, source: Path | None = None) -> None:
    """Raise `UsageError` where a pulsed model cannot be written to `out`."""
    if out.is_dir():
        raise UsageError(f"{out}: is a directory; name the file to write")
    folder = out.parent
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if not out.name:
        raise UsageError("the output needs a file name")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: no permission to write there")
    for target in (out, sidecar_path(out), _data_path(out)):
        if target.is_dir():
            raise UsageError(f"{target}: is a directory")
        if source is not None and target.exists() and source.exists() and os.path.samefile(target, source):
            raise UsageError(f"{target}: is the input; write to another file")


@dataclass
class Staged:
    """A model written aside: ``model`` can be run already; ``commit`` moves it and its company into place."""

    model: Path
    out: Path
    _aside: Path

    def commit(self) -> None:
        """Move everything into place; each file is replaced as a whole."""
        for path in sorted(self._aside.iterdir(), key=lambda p: p.name == self.out.name):
            os.replace(path, self.out.parent / path.name)
        _sync(self.out.parent)


@contextmanager
def staged(model: ir.Model, spec: dict[str, Any], out: Path) -> Iterator[Staged]:
    """Write model and sidecar into a folder beside `out`; what is not committed is gone afterwards."""
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.", dir=out.parent))
    except OSError as problem:
        raise UsageError(f"{out.parent}: cannot write there ({problem.strerror})") from problem
    try:
        try:
            written = aside / out.name
            _write(model, written)
            text = json.dumps(spec, indent=2, ensure_ascii=False) + "\n"
            sidecar_path(written).write_text(text, encoding="utf-8")
            for path in aside.iterdir():
                _sync(path)
            yield Staged(written, out, aside)
        except OSError as problem:
            raise UsageError(f"{out}: cannot be written ({problem.strerror or problem})") from problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def save(model: ir.Model, spec: dict[str, Any], out: Path) -> None:
    """Write model and sidecar together."""
    check_target(out)
    with staged(model, spec, out) as files:
        files.commit()


def _data_path(out: Path) -> Path:
    return out.with_name(out.name + ".data")


def _write(model: ir.Model, path: Path) -> None:
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    outside = any(isinstance(t, ir.ExternalTensor) for t in tensors)
    if not outside and sum(t.nbytes for t in tensors) <= INLINE_LIMIT:
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        return
    kept = {name: v.const_value for name, v in model.graph.initializers.items()}
    try:
        for name, tensor in kept.items():
            if isinstance(tensor, ir.ExternalTensor):  # its memory map may be in use: saving must not close it
                model.graph.initializers[name].const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=name)
        ir.save(model, path, external_data=_data_path(path).name)
    finally:
        for name, tensor in kept.items():
            model.graph.initializers[name].const_value = tensor


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)
