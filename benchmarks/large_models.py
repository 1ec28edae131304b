"""Seconds and peak memory of converting a large model, beside ``onnx.load`` + ``onnx.save`` of the same file.

    python benchmarks/large_models.py [--megabytes 500] [--verify]

The model is generated in a temporary folder, with its weights outside of the model file, then inline.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent

COPY = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
COPY_OUTSIDE = COPY[:-1] + ", save_as_external_data=True, location='copy.data')"


def write(folder: Path, megabytes: int, outside: bool) -> Path:
    """A stack of convolutions with so many bytes of weights; they are made one at a time."""
    channels = 1024
    count = max(1, round(megabytes * 1e6 / (channels * channels * 3 * 4)))
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    with (folder / "large.data").open("wb") as data:
        for k in range(count):
            w = (rng.standard_normal((channels, channels, 3), dtype=np.float32) / 60).astype(np.float32)
            if outside:
                t = TensorProto(
                    name=f"w{k}", data_type=TensorProto.FLOAT, dims=w.shape, data_location=TensorProto.EXTERNAL
                )
                for key, value in (("location", "large.data"), ("offset", str(data.tell())), ("length", str(w.nbytes))):
                    t.external_data.add(key=key, value=value)
                data.write(w.tobytes())
            else:
                t = numpy_helper.from_array(w, f"w{k}")
            weights.append(t)
            nodes.append(
                helper.make_node("Conv", [f"h{k}" if k else "x", f"w{k}"], [f"h{k + 1}"], name=f"conv{k}", pads=[1, 1])
            )
    nodes.append(helper.make_node("Identity", [f"h{count}"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", 1, [1, channels, "T"])],
        [helper.make_tensor_value_info("y", 1, [1, channels, "T"])],
        weights,
    )
    path = folder / "large.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def measured(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a command."""
    start = time.monotonic()
    code = (
        "import resource, subprocess, sys\nr = subprocess.run(sys.argv[1:], "
        "stdout=2)\nprint(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, r.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    peak, failed = done.stdout.split()
    if failed != "0":
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return time.monotonic() - start, int(peak) / 1024


def measure(
    megabytes: int, outside: bool, verify: bool, report: Callable[[str], None]
) -> dict[str, tuple[float, float]]:
    """Convert and copy one model; (seconds, peak megabytes) of each."""
    with tempfile.TemporaryDirectory(prefix="pulsify-large-") as name:
        folder = Path(name)
        path = write_apart(folder, megabytes, outside)
        python = [sys.executable]
        out = folder / "out"
        out.mkdir()
        commands = {
            "python -c 'import onnx'": [*python, "-c", "import onnx, onnx_ir"],
            "onnx.load + onnx.save": [
                *python,
                "-c",
                COPY_OUTSIDE if outside else COPY,
                str(path),
                str(out / "copy.onnx"),
            ],
            "pulsify-onnx inspect": [*python, "-m", "pulsify_onnx", "inspect", str(path)],
            "pulsify-onnx convert --no-verify": [
                *python,
                "-m",
                "pulsify_onnx",
                "convert",
                str(path),
                "-o",
                str(out / "o.onnx"),
                "--pulse",
                "4",
                "--no-verify",
            ],
        }
        if verify:
            commands["pulsify-onnx convert"] = commands["pulsify-onnx convert --no-verify"][:-1]
        found = {}
        for title, arguments in commands.items():
            found[title] = measured(arguments)
            report(f"  {title:36} {found[title][0]:7.1f} s {found[title][1]:8.0f} MB")
        return found


def write_apart(folder: Path, megabytes: int, outside: bool) -> Path:
    """The model, written by another process: a child's peak memory begins with that of its parent."""
    subprocess.run(
        [
            sys.executable,
            __file__,
            "--write",
            str(folder),
            "--megabytes",
            str(megabytes),
            *(["--outside"] if outside else []),
        ],
        check=True,
    )
    return folder / "large.onnx"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--verify", action="store_true", help="convert with verification, too")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--outside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write(args.write, args.megabytes, args.outside)
        return 0
    for outside in (True, False):
        print(
            f"{args.megabytes} MB of weights {'outside of the model file' if outside else 'inline'} (onnx "
            f"{onnx.__version__})"
        )
        measure(args.megabytes, outside, args.verify, print)
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
