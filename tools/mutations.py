"""Small changes of a piece of Python, drawn from its syntax tree: each is one edit of the text, so that the rest
stays as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutation:
    """Bytes `start` to `end` of a file become `new`; `line` and `what` tell people."""

    line: int
    start: int
    end: int
    old: str
    new: str

    @property
    def what(self) -> str:
        """The change in words."""
        return f"{self.line}: {_short(self.old)} → {_short(self.new)}"

    def applied(self, text: str) -> str:
        """`text` with the change in it."""
        raw = text.encode()
        return (raw[: self.start] + self.new.encode() + raw[self.end :]).decode()


def mutations(text: str) -> list[Mutation]:
    """Every change there is of a module, in the order of its text; each one compiles, and means something else."""
    tree = ast.parse(text)
    offsets = [0]
    for line in text.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = {}
    for node, other in _changes(tree):
        start, end = (
            offsets[row - 1] + column
            for row, column in ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        )
        old = text.encode()[start:end].decode()
        new = ast.unparse(ast.fix_missing_locations(other))
        if isinstance(node, ast.expr) and not isinstance(other, ast.Constant):
            new = f"({new})"
        change = Mutation(node.lineno, start, end, old, new)
        if _meaning(ast.unparse(node)) != _meaning(new) and _compiles(change.applied(text)):
            found[start, end, new] = change
    return [found[key] for key in sorted(found)]


def _meaning(piece: str) -> str:
    return ast.dump(ast.parse(piece)) if _compiles(piece) else piece


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _short(piece: str) -> str:
    line = " ".join(piece.split())
    return line if len(line) < 70 else line[:66] + " …"


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.expr | ast.stmt]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in function.body:
                yield from _within(statement)


def _within(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.expr | ast.stmt]]:
    if isinstance(
        node, ast.FunctionDef | ast.ClassDef | ast.JoinedStr | ast.Raise
    ):  # functions come by themselves; what people read is no logic
        return
    if isinstance(node, ast.expr):
        yield from ((node, other) for other in _expressions(node))
    elif isinstance(node, ast.stmt):
        yield from ((node, other) for other in _statements(node))
    for name, value in ast.iter_fields(node):
        if name == "annotation":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _within(child)


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if called or isinstance(node, ast.AugAssign | ast.Continue) or (isinstance(node, ast.If) and not node.orelse):
        yield ast.Pass()


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left=left, ops=[one], comparators=right):
            yield ast.Compare(left, [FLIPPED[type(one)]()], right)
        case ast.BoolOp(op=ast.And(), values=values):
            yield ast.BoolOp(ast.Or(), values)
            yield from _less(values, lambda rest: rest[0] if len(rest) == 1 else ast.BoolOp(ast.And(), rest))
        case ast.BoolOp(op=ast.Or(), values=values):
            yield ast.BoolOp(ast.And(), values)
            yield from _less(values, lambda rest: rest[0] if len(rest) == 1 else ast.BoolOp(ast.Or(), rest))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            yield ast.BinOp(left, ast.Sub() if isinstance(op, ast.Add) else ast.Add(), right)
            yield left
        case ast.BinOp(left=left, op=ast.Mult() | ast.FloorDiv()):
            yield left
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            yield ast.Constant(value + 1)
            if value > 0:
                yield ast.Constant(value - 1)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.Call():
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in ("max", "min"):
        yield ast.Call(ast.Name("min" if name == "max" else "max"), node.args, node.keywords)
        if len(node.args) > 1:
            yield from _less(
                node.args,
                lambda rest: (
                    rest[0] if len(rest) == 1 and not node.keywords else ast.Call(node.func, rest, node.keywords)
                ),
            )
        return
    for k in range(len(node.args) - 1):
        if type(node.args[k]) is not type(node.args[k + 1]):  # nothing would run
            continue
        yield ast.Call(node.func, [*node.args[:k], node.args[k + 1], node.args[k], *node.args[k + 2 :]], node.keywords)
    if len(node.keywords) > 1 or name == "replace":
        yield from (
            ast.Call(node.func, node.args, [*node.keywords[:k], *node.keywords[k + 1 :]])
            for k in range(len(node.keywords))
        )


def _less(values: Sequence[ast.expr], made: Callable[[list[ast.expr]], ast.expr]) -> Iterator[ast.expr]:
    for k in range(len(values)):
        yield made([*values[:k], *values[k + 1 :]])
