"""What the tool makes of many models, as digests: written before a change that must not be seen, compared after it.

    python -m tools.golden write GOLDEN.json [FOLDER ...]
    python -m tools.golden compare GOLDEN.json [FOLDER ...] [--allow names|delays]

Every model of ``fixtures/`` and of the folders is converted at pulses 1, 16 and dynamic (larger ones where it needs a
multiple),
with and without an end of stream, and as it is or with a batch of any size. Kept are sha256 of the model's and the
sidecar's bytes, a digest
of the graph that does not see the names of inner tensors and nodes, delays, state, and whether rows are independent; or
the blockers.
Exit status 1 where something differs that is not allowed: nothing by default; with ``names`` names of inner tensors,
nodes and
state tags; with ``delays`` any graph whose delays are not larger, and whose rows stay independent. What was refused may
stream then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import onnx

from pulsify_onnx import AmbiguousAxis, CannotStream, PulsedModel, PulsifyError, analyze, pulsify

ROOT = Path(__file__).resolve().parent.parent

Entry = dict[str, Any]


def digest(data: bytes) -> str:
    """The first 16 hexadecimal digits of sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def nameless(proto: onnx.ModelProto) -> str:
    """A digest of a graph in which inner tensors, nodes and states have numbers for names."""
    graph = proto.graph
    kept = {v.name for v in (*graph.input, *graph.output) if not v.name.startswith(("past_", "present_"))}
    numbers: dict[str, str] = {}
    data = {
        t.name: f"{t.data_type} {list(t.dims)} {digest(onnx.numpy_helper.to_array(t).tobytes())}"
        for t in graph.initializer
    }

    def number(name: str) -> str:
        return name if name in kept or not name else numbers.setdefault(name, data.get(name) or f"v{len(numbers)}")

    lines = [f"{number(v.name)} {v.type.SerializeToString(deterministic=True).hex()}" for v in graph.input]
    for node in graph.node:
        attributes = sorted(
            a.SerializeToString(deterministic=True).hex() for a in node.attribute if not a.HasField("g")
        )
        lines.append(
            f"{','.join(map(number, node.output))} = "
            f"{node.domain}.{node.op_type}({','.join(map(number, node.input))}) {attributes}"
        )
    lines += [f"{number(v.name)} {v.type.SerializeToString(deterministic=True).hex()}" for v in graph.output]
    return digest("\n".join(lines).encode())


def made(model: Path, **options: Any) -> Entry:
    """What becomes of `model`."""
    try:
        pulsed = pulsify(model, **options)
    except CannotStream as problem:
        return {"refused": [f"{b.node} ({b.op_type}): {b.reason}" for b in problem.blockers]}
    except PulsifyError as problem:
        return {"refused": [f"{type(problem).__name__}: {problem}"]}
    return _entry(pulsed)


def _entry(pulsed: PulsedModel) -> Entry:
    proto, spec = pulsed.proto(), pulsed.spec
    return {
        "model": digest(proto.SerializeToString(deterministic=True)),
        "sidecar": digest(json.dumps(spec, sort_keys=True).encode()),
        "graph": nameless(proto),
        "delays": [o.get("delay") for o in spec["outputs"]],
        "state_bytes": spec["state_bytes"],
        "independent_rows": spec.get("independent_rows", True),
    }


def entries(model: Path) -> Iterator[tuple[str, Entry]]:
    """(case, what becomes of it) of one model."""
    axes = None
    try:
        multiple = analyze(model).pulse_multiple
    except AmbiguousAxis as question:
        axes = {name: int(axis) for name, axis in re.findall(r"--axis (\S+)=(\d+)", question.options[0])}
        multiple = analyze(model, axes=axes).pulse_multiple
    except PulsifyError as problem:
        yield "any", {"refused": [f"{type(problem).__name__}: {problem}"]}
        return
    for pulse in (*sorted({math.ceil(p / multiple) * multiple for p in (1, 16)}), None):
        for end in (False, True):
            for batch in (None, "dynamic"):
                case = f"pulse {pulse or 'dynamic'}{', end' if end else ''}{', batch' if batch else ''}"
                yield case, made(model, pulse=pulse, axes=axes, end_of_stream=end, batch=batch)


def _all(model: Path) -> dict[str, Entry]:
    return dict(entries(model))


def collected(folders: list[Path]) -> dict[str, dict[str, Entry]]:
    """Entries by model and case."""
    models = sorted(path for folder in (ROOT / "fixtures", *folders) for path in folder.rglob("*.onnx"))
    names = [
        str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f"{path.parent.name}/{path.name}"
        for path in models
    ]
    with ProcessPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(_all, models)))


def difference(old: Entry, new: Entry, allow: str) -> str:
    """What differs though it may not; empty where nothing does."""
    if old == new:
        return ""
    if "refused" in old or "refused" in new:
        if allow == "delays" and "refused" in old:
            return ""
        return f"{old.get('refused', 'streams')} is now {new.get('refused', 'streams')}"
    if allow == "delays":
        later = any(b is not None and (a is None or b > a) for a, b in zip(old["delays"], new["delays"]))
        shared = old["independent_rows"] and not new["independent_rows"]
        return (
            f"delays {old['delays']} are now {new['delays']}"
            if later
            else "rows are not independent any more"
            if shared
            else ""
        )
    keys = ["graph", "delays", "state_bytes", "independent_rows"] if allow == "names" else list(old)
    return ", ".join(f"{key} {old[key]} is now {new[key]}" for key in keys if old[key] != new[key])


def main() -> None:
    """Exit status 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "compare"])
    parser.add_argument("golden", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--allow", choices=["nothing", "names", "delays"], default="nothing")
    args = parser.parse_args()
    found = collected(args.folders)
    if args.command == "write":
        args.golden.write_text(json.dumps(found, indent=1, sort_keys=True))
        print(f"{sum(map(len, found.values()))} cases of {len(found)} models")
        return
    golden = json.loads(args.golden.read_text())
    wrong = changed = 0
    for name in sorted({*golden, *found}):
        for case in sorted({*golden.get(name, {}), *found.get(name, {})}):
            old, new = golden.get(name, {}).get(case), found.get(name, {}).get(case)
            problem = "is not in both" if old is None or new is None else difference(old, new, args.allow)
            changed += old != new
            if problem:
                wrong += 1
                print(f"{name}, {case}: {problem}")
    print(f"{changed} of {sum(map(len, found.values()))} cases changed, {wrong} more than may")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
