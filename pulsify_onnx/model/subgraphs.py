"""Subgraphs of Scan, Loop and If: what they read from outside, and the types of what they give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir


def outer_names(graph: ir.Graph) -> set[str]:
    """Names that a subgraph reads from outside."""
    own = {v.name for v in graph.inputs} | set(graph.initializers)
    found: set[str] = set()
    for node in graph:
        for value in node.inputs:
            if value is not None and value.name and value.name not in own:
                found.add(value.name)
        for inner in subgraphs(node.attributes.values()):
            found |= outer_names(inner) - {n for n in own if n}
        own |= {v.name for v in node.outputs}
    for value in graph.outputs:
        if value.name and value.name not in own:
            found.add(value.name)
    return found


def subgraphs(attributes: Iterable[ir.Attr]) -> list[ir.Graph]:
    """The graphs among `attributes`."""
    return [attr.as_graph() for attr in attributes if attr.type == ir.AttributeType.GRAPH]


def prune(graph: ir.Graph) -> None:
    """Remove the nodes of a subgraph that nothing reads."""
    for node in reversed(list(graph)):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            graph.remove(node, safe=True)


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of a subgraph and of those inside it."""
    for node in graph:
        yield node
        for inner in subgraphs(node.attributes.values()):
            yield from all_nodes(inner)
