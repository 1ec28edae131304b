"""Every test case of the onnx package, streamed along every axis that can be made dynamic.

    python -m tools.conformance [--share 0.2] [--seed TEXT] [--jobs 2] [--only SUBSTRING]

For each case and each axis of each input, the model is rewritten so that this dimension (of this input alone, and of
all inputs that have the same size there) is dynamic and all other inputs are constants. Whatever converts must stream
exactly at pulses 1 and 3 (or their pulse multiples), with and without an end of stream, NaN past the end; whatever
does not must be refused. Prints a table per operator; exit status 1 if anything is wrong or crashed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import math
import random
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnx.version_converter
from onnx import numpy_helper

from pulsify_onnx.algebra.facts import Running, Static
from testing import oracle

LENGTHS = (13, 12, 24, 36)
SUITES = ("pytorch-operator", "pytorch-converted", "simple")


@dataclass(frozen=True)
class Case:
    """One model of the suites; `where` finds it again in a worker process."""

    name: str
    where: tuple[str, int]


@dataclass(frozen=True)
class Result:
    """What became of one reading of one case."""

    name: str
    operator: str
    verdict: str
    message: str = ""


def node_cases() -> list[object]:
    """The single-operator models that the package generates."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(load_model_tests(kind="node"))


def folders() -> list[Path]:
    """The models on disk."""
    root = Path(onnx.backend.test.__file__).parent / "data"
    return sorted(p.parent for suite in SUITES for p in (root / suite).glob("*/model.onnx"))


_NODE_CASES: list[object] = []


def open_case(case: Case) -> tuple[onnx.ModelProto, list[object]]:
    """(model, input values of the first data set)."""
    kind, index = case.where
    if kind == "node":
        if not _NODE_CASES:
            _NODE_CASES.extend(node_cases())
        found = _NODE_CASES[index]
        model = found.model if found.model is not None else onnx.load(Path(found.model_dir) / "model.onnx")  # type: ignore[attr-defined]
        if found.data_sets:  # type: ignore[attr-defined]
            return model, [_value(v) for v in found.data_sets[0][0]]  # type: ignore[attr-defined]
        folder = Path(found.model_dir)  # type: ignore[attr-defined]
    else:
        folder = folders()[index]
        model = onnx.load(folder / "model.onnx")
    data = folder / "test_data_set_0"
    values: list[object] = []
    for k in range(len(model.graph.input)):
        file = data / f"input_{k}.pb"
        if not file.exists():
            break
        tensor = onnx.TensorProto()
        tensor.ParseFromString(file.read_bytes())
        values.append(_value(tensor))
    return model, values


def _value(found: object) -> object:
    return (
        numpy_helper.to_array(found)
        if isinstance(found, onnx.TensorProto)
        else np.asarray(found)
        if isinstance(found, np.generic)
        else found
    )


def readings(model: onnx.ModelProto, values: list[object]) -> Iterator[tuple[str, dict[str, int]]]:
    """(label, stream axis by input): each axis of each tensor input alone, and together with those of the same size."""
    initial = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initial]
    arrays = {i.name: v for i, v in zip(inputs, values) if isinstance(v, np.ndarray) and v.dtype.kind in "fiub"}
    seen: set[tuple[tuple[str, int], ...]] = set()
    for name, array in arrays.items():
        for axis in range(array.ndim):
            alone = {name: axis}
            together = dict(alone)
            for other, value in arrays.items():
                same = [k for k in range(value.ndim) if value.shape[k] == array.shape[axis]]
                match = (
                    axis
                    if axis in same
                    else axis - array.ndim + value.ndim
                    if axis - array.ndim + value.ndim in same
                    else None
                )
                if other != name and match is not None and array.shape[axis] > 1:
                    together[other] = match
            for axes in (alone, together):
                key = tuple(sorted(axes.items()))
                if key not in seen:
                    seen.add(key)
                    yield " ".join(f"{n}={a}" for n, a in key), axes


def dynamic(model: onnx.ModelProto, values: list[object], axes: dict[str, int]) -> onnx.ModelProto | None:
    """The model with these dimensions dynamic and all other inputs constant; None where an input can't be a
    constant.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    out.ir_version = min(out.ir_version, 10)  # cases are written in the newest format, whatever onnxruntime reads
    initial = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initial]
    keep = []
    for k, value in enumerate(inputs):
        if value.name in axes:
            shape = values[k].shape  # type: ignore[attr-defined]
            dims: list[int | str] = list(shape)
            dims[axes[value.name]] = "T"
            keep.append(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dims))
        elif k < len(values) and isinstance(values[k], np.ndarray) and value.type.HasField("tensor_type"):
            tensor = numpy_helper.from_array(values[k], value.name)  # type: ignore[arg-type]
            if tensor.data_type != value.type.tensor_type.elem_type:
                return None
            out.graph.initializer.append(tensor)
        else:
            return None
    del out.graph.input[:]
    out.graph.input.extend(keep)
    outputs = [
        onnx.helper.make_tensor_value_info(o.name, o.type.tensor_type.elem_type, None)
        for o in out.graph.output
        if o.type.HasField("tensor_type")
    ]
    if len(outputs) != len(out.graph.output):
        return None
    del out.graph.output[:]
    out.graph.output.extend(outputs)
    del out.graph.value_info[:]
    return out


def judge(case: Case) -> list[Result]:
    """All readings of one case."""
    model, values = open_case(case)
    model = _newer(model)
    operator = model.graph.node[0].op_type if len(model.graph.node) == 1 or case.where[0] == "node" else "(network)"
    found = []
    for label, axes in readings(model, values):
        made = dynamic(model, values, axes)
        arrays = {i.name: v for i, v in zip(model.graph.input, values) if i.name in axes}
        verdict, message = ("not runnable", "") if made is None else _verdict(made, axes, arrays)
        found.append(Result(f"{case.name} [{label}]", operator, verdict, message))
    return found


class Reference:
    """onnx's own evaluator in the place of a session: it runs what onnxruntime does not yet."""

    def __init__(self, model: bytes):
        from onnx.reference import ReferenceEvaluator

        self.graph = onnx.load_from_string(model).graph
        self.evaluator = ReferenceEvaluator(model)

    def get_inputs(self) -> list[onnx.ValueInfoProto]:
        """Those of the graph."""
        return list(self.graph.input)

    def get_outputs(self) -> list[onnx.ValueInfoProto]:
        """Those of the graph."""
        return list(self.graph.output)

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        """All outputs."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [np.asarray(v) for v in self.evaluator.run(names, feeds)]


_onnxruntime = oracle.session


def session(model: bytes, plain: bool = False) -> Any:
    """onnxruntime, or else onnx's own evaluator."""
    try:
        return _onnxruntime(model, plain)
    except Exception:
        return Reference(model)


def _newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at the oldest opset that is supported, where it is older and onnx can convert it."""
    if any(o.version < 7 for o in model.opset_import if o.domain in ("", "ai.onnx")):
        with contextlib.suppress(Exception):
            return onnx.version_converter.convert_version(model, 7)
    return model


def _verdict(model: onnx.ModelProto, axes: dict[str, int], arrays: dict[str, Any]) -> tuple[str, str]:
    """What becomes of one reading, and why; `arrays` are its inputs as the suite has them."""
    from pulsify_onnx.api import analyze, pulsify
    from pulsify_onnx.errors import UNEXPECTED, CannotStream, InvalidModel

    try:
        plan = analyze(model, axes=axes).at()
    except InvalidModel as problem:
        return "not runnable", str(problem)
    except Exception as problem:
        return "crashed", f"{type(problem).__name__}: {problem}"[:300]
    try:
        if plan.blockers:
            bug = next(
                (b.reason for b in plan.blockers if UNEXPECTED in b.reason or not b.reason or not b.hint or not b.node),
                None,
            )
            return ("refused", "") if bug is None else ("crashed", bug or "a blocker is incomplete")
        makers = {n: partial(_like, arrays[n]) for n in axes}
        length = _length(model, axes, arrays, makers)
        if length is None:
            for end in (False, True):
                pulsify(model, pulse=plan.pulse_multiple, axes=axes, end_of_stream=end)
            return "not runnable", ""
        oracle.session = session
        half = arrays[next(iter(axes))].dtype == np.float16
        oracle.check(
            model,
            axes=axes,
            pulses=(1, 3),
            length=length,
            unit=1 if length == LENGTHS[0] else 12,
            inputs=makers,
            rtol=2e-3 if half else 1e-4,
            beyond=12,
        )
    except CannotStream:
        return "refused", ""
    except AssertionError as difference:
        return "wrong", str(difference)[:300]
    except Exception as problem:  # whatever it is, it is a finding
        if not plan.blockers and "fixed_length" in pulsify(model, pulse=plan.pulse_multiple, axes=axes).spec:
            return "not runnable", "the batch model takes one length only"
        return "crashed", f"{type(problem).__name__}: {problem}"[:300]
    kinds = {type(plan.facts[o]) for o in plan.outputs}
    return "static" if kinds == {Static} else "prefix" if Running in kinds else "streamed", ""


def _like(source: Any, rng: np.random.Generator, shape: list[int]) -> Any:
    """Random values; whole numbers are those of the suite, which may be indices."""
    if source.dtype.kind in "iu" and source.size:
        return rng.choice(source.ravel(), shape).astype(source.dtype)
    return oracle.draw(rng, source.dtype, shape)


def _length(model: onnx.ModelProto, axes: dict[str, int], arrays: dict[str, Any], makers: dict[str, Any]) -> int | None:
    """The first length that the batch model takes here, None where it takes none of them or onnxruntime does not
    load it.
    """
    try:
        batch = session(model.SerializeToString())
    except Exception:
        return None
    for length in LENGTHS:
        feeds = {}
        for name, axis in axes.items():
            shape = list(arrays[name].shape)
            shape[axis] = length
            feeds[name] = makers[name](np.random.default_rng(0), shape)
        try:
            batch.run(None, feeds)
            return length
        except Exception:
            continue
    return None


def run(cases: list[Case], jobs: int) -> Iterator[Result]:
    """Judge in worker processes; a case that takes its process down is a crash."""
    todo = [cases[k : k + 8] for k in range(0, len(cases), 8)]
    while todo:
        batch, todo = todo, []
        with ProcessPoolExecutor(jobs) as pool:
            futures = [(part, pool.submit(_judge_all, part)) for part in batch]
            for part, future in futures:
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    if len(part) == 1:
                        yield Result(part[0].name, "?", "crashed", "the process died")
                    else:
                        todo.extend([c] for c in part)


def _judge_all(cases: list[Case]) -> list[Result]:
    return [r for c in cases for r in judge(c)]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases, drawn with --seed")
    parser.add_argument("--seed", default="", help="any text, such as a commit")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    cases = [Case(c.name, ("node", k)) for k, c in enumerate(node_cases())]  # type: ignore[attr-defined]
    cases += [Case(f.name, ("folder", k)) for k, f in enumerate(folders())]
    cases = [c for c in cases if args.only in c.name]
    total = len(cases)
    if args.share < 1:
        draw = random.Random(int(hashlib.sha256(args.seed.encode()).hexdigest(), 16))
        cases = draw.sample(cases, math.ceil(total * args.share))
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    bad = []
    for result in run(cases, args.jobs):
        table[result.operator][result.verdict] += 1
        if result.verdict in ("wrong", "crashed"):
            bad.append(result)
            print(f"{result.verdict:8} {result.name}: {result.message}", flush=True)
    verdicts = ("streamed", "static", "prefix", "refused", "not runnable", "wrong", "crashed")
    print(f"\n{'operator':28}" + "".join(f"{v:>14}" for v in verdicts))
    for operator in sorted(table):
        print(f"{operator:28}" + "".join(f"{table[operator][v] or '':>14}" for v in verdicts))
    sums = collections.Counter[str]()
    for row in table.values():
        sums.update(row)
    print(f"{'total':28}" + "".join(f"{sums[v]:>14}" for v in verdicts))
    print(
        f"\n{len(cases)} of {total} cases, {sum(sums.values())} readings: {sums['wrong']} wrong, {sums['crashed']} "
        "crashed"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
