"""Recorded data for the verification: read from files, and written where a stream differs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulsify_onnx.arrays import Array
from pulsify_onnx.errors import UsageError
from pulsify_onnx.runtime.sidecar import Sidecar, StreamInput


def read_recordings(options: Sequence[str]) -> dict[str, Array]:
    """``INPUT=FILE.npy``, ``INPUT=FILE.npz`` (its entry INPUT, or the only one) or ``FILE.npz`` (all its entries) as
    arrays by input.
    """
    found: dict[str, Array] = {}
    for option in options:
        name, equals, file = option.rpartition("=")
        loaded = _load(Path(file))
        if not isinstance(loaded, dict):
            if not equals:
                raise UsageError(f"--input {option}: write it as INPUT={file}")
            loaded = {name: loaded}
        elif equals:
            if name not in loaded and len(loaded) != 1:
                raise UsageError(f"{file} has no entry {name}; it has {', '.join(loaded)}")
            loaded = {name: loaded.get(name, next(iter(loaded.values())))}
        twice = set(found) & set(loaded)
        if twice:
            raise UsageError(f"--input {', '.join(sorted(twice))}: given twice")
        found.update(loaded)
    return found


def _load(path: Path) -> Array | dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except Exception as problem:
        raise UsageError(f"{path}: not an array of numpy (.npy or .npz)") from problem


def fitting(recorded: Mapping[str, Array], sidecar: Sidecar) -> dict[str, Array]:
    """Recorded inputs in the types of the model. Raises `UsageError` where they do not fit it."""
    known = {i.name: i for i in sidecar.inputs}
    fitting = {}
    for name, value in recorded.items():
        if name not in known:
            raise UsageError(f"the model has no input {name}; it has {', '.join(known)}")
        i = known[name]
        axis = i.axis if isinstance(i, StreamInput) else None
        if value.ndim != len(i.shape) or any(
            k != axis and isinstance(d, int) and d != n for k, (d, n) in enumerate(zip(i.shape, value.shape))
        ):
            raise UsageError(
                f"the recording of {name} has shape {list(value.shape)}, the model takes {list(i.shape)}"
                + (f" with any length on axis {axis}" if axis is not None else "")
            )
        if not np.can_cast(value.dtype, i.dtype, "same_kind"):
            raise UsageError(f"the recording of {name} is {value.dtype}, the model takes {i.dtype}")
        fitting[name] = value.astype(i.dtype)
    return fitting


def write_case(
    folder: Path,
    inputs: Mapping[str, Array],
    batch: Mapping[str, Array],
    stream: Mapping[str, Array],
    report: Mapping[str, Any],
) -> None:
    """A failing case: ``inputs.npz`` (for ``--input``), ``batch.npz`` and ``stream.npz`` (delays included),
    ``report.json``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, arrays in (("inputs", inputs), ("batch", batch), ("stream", stream)):
            with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive:
                for key, array in arrays.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{folder}: the case cannot be saved there ({problem.strerror or problem})") from problem
