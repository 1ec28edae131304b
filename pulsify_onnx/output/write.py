"""Writing a pulsed model: model, sidecar and external data appear together, or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import onnx_ir as ir

from pulsify_onnx.errors import UsageError
from pulsify_onnx.output import atomic, guard

INLINE_LIMIT = 1 << 28
"""Weights of more bytes than this leave the model file: protobuf would have them in memory several times, and cannot
hold 2 GB.
"""

SMALL = 1024
"""Tensors of fewer bytes stay in the model file."""

ALIGNMENT = 4096
"""Weights outside of the model file begin at multiples of it, so that they can be memory-mapped."""

BLOCK = 1 << 22


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
    for target in (out, sidecar_path(out)):
        if target.is_dir():
            raise UsageError(f"{target}: is a directory")
        if source is not None and target.exists() and source.exists() and os.path.samefile(target, source):
            raise UsageError(f"{target}: is the input; write to another file")


@dataclass
class Staged:
    """A model written aside: ``model`` can be run already; ``commit`` moves it and its company into place."""

    model: Path
    out: Path

    def commit(self) -> None:
        """Move everything into place, see `staging` for what that promises."""
        try:
            with guard.moving():
                atomic.put_in_place(self.model.parent, self.out, _any_data(self.out))
        except OSError as problem:
            raise _unwritable(self.out, problem) from problem


@contextmanager
def staged(model: ir.Model, spec: dict[str, Any], out: Path) -> Iterator[Staged]:
    """Write model and sidecar into a folder beside `out`; what is not committed is gone afterwards."""
    with ExitStack() as held:
        try:
            aside = held.enter_context(atomic.folder(out))
            guard.note(folder=str(aside), target=str(out), company=_any_data(out))
            text = json.dumps(spec, indent=2, ensure_ascii=False) + "\n"
            written = aside / out.name
            write(model, written, _data_name(out, text))
            sidecar_path(written).write_text(text, encoding="utf-8")
            for path in aside.iterdir():
                atomic.sync(path)
        except OSError as problem:
            raise _unwritable(out, problem) from problem
        yield Staged(written, out)


def _unwritable(out: Path, problem: OSError) -> UsageError:
    return UsageError(f"{out}: cannot be written ({problem.strerror or problem})")


def save(model: ir.Model, spec: dict[str, Any], out: Path) -> None:
    """Write model and sidecar together."""
    check_target(out)
    with staged(model, spec, out) as files:
        files.commit()


def _data_name(out: Path, text: str) -> str:
    """Name of the weights of the model that the sidecar `text` describes: no other model has the same."""
    return f"{out.name}.{hashlib.sha256(text.encode()).hexdigest()[:12]}.data"


def _any_data(out: Path) -> str:
    """Pattern of the names that `_data_name` gives."""
    return f"{glob.escape(out.name)}.{'[0-9a-f]' * 12}.data"


def write(model: ir.Model, path: Path, data: str) -> None:
    """Write `model`, with its weights in a file `data` beside it where they are many or outside already."""
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    outside = any(isinstance(t, ir.ExternalTensor) for t in tensors)
    if not outside and sum(t.nbytes for t in tensors) <= INLINE_LIMIT:
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
        return
    kept = {name: v.const_value for name, v in model.graph.initializers.items()}
    try:
        with (path.parent / data).open("wb") as file:
            for name, tensor in kept.items():
                if tensor is not None and tensor.nbytes >= SMALL:
                    model.graph.initializers[name].const_value = _moved(tensor, file, path.parent)
                elif isinstance(tensor, ir.ExternalTensor):
                    model.graph.initializers[name].const_value = ir.Tensor(
                        tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=name
                    )
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    finally:
        for name, tensor in kept.items():
            model.graph.initializers[name].const_value = tensor


def with_weights(model: ir.Model) -> ir.Model:
    """`model` with its weights in memory (a copy, where they are in files): onnxruntime finds no files beside a
    model that is none.
    """
    if not any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values()):
        return model
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if isinstance(tensor := value.const_value, ir.ExternalTensor):
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)
    return copy


def _moved(tensor: ir.TensorProtocol, file: BinaryIO, folder: Path) -> ir.ExternalTensor:
    """`tensor` with its bytes at the end of `file`; what is on disk is copied without being in memory as a whole."""
    file.write(bytes(-file.tell() % ALIGNMENT))
    begin = file.tell()
    if isinstance(tensor, ir.ExternalTensor):
        with open(tensor.path, "rb") as source:
            source.seek(tensor.offset or 0)
            left = tensor.nbytes
            while left > 0:
                block = source.read(min(left, BLOCK))
                if not block:
                    raise OSError(f"{tensor.path} is cut short")
                left -= file.write(block)
    else:
        file.write(tensor.tobytes())
    return ir.ExternalTensor(
        os.path.basename(file.name),
        begin,
        file.tell() - begin,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        base_dir=folder,
    )
