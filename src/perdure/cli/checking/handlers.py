"""Handlers of exceptions: whether one catches what must not be swallowed, and whether it may end without raising it."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from perdure.cli.checking.scopes import Scope

NOT_TO_SWALLOW = {
    "BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError", "perdure.contract.ports.Suspended",
}  # fmt: skip

Exits = frozenset[str]
"""How a block of statements may end: it raises again, leaves otherwise (returns, breaks, raises something else), or
falls through to what follows."""
RAISES, LEAVES, FALLS = frozenset({"raises"}), frozenset({"leaves"}), frozenset({"falls"})


def caught(kinds: ast.expr | None, scope: Scope) -> str | None:
    """What a handler is called that catches what must not be swallowed; None for others."""
    if kinds is None:
        return "a bare except"
    listed = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
    return next((f"except {ast.unparse(kind)}" for kind in listed if scope.dotted(kind) in NOT_TO_SWALLOW), None)


def swallows(handler: ast.ExceptHandler, scope: Scope) -> bool:
    """Whether some way through the handler does not raise again what it caught."""
    return _exits(handler.body, handler.name, scope) != RAISES


def _exits(statements: Sequence[ast.stmt], name: str | None, scope: Scope) -> Exits:
    found: Exits = frozenset()
    for statement in statements:
        ends = _exits_of(statement, name, scope)
        found |= ends - FALLS
        if not ends & FALLS:
            return found
    return found | FALLS


def _exits_of(statement: ast.stmt, name: str | None, scope: Scope) -> Exits:
    def exits(*blocks: Sequence[ast.stmt]) -> Exits:
        return frozenset().union(*(_exits(block, name, scope) for block in blocks))

    match statement:
        case ast.Raise(exc=raised):
            return RAISES if _raises_again(raised, name, scope) else LEAVES
        case ast.Return() | ast.Break() | ast.Continue():
            return LEAVES
        case ast.If(body=body, orelse=otherwise):
            return exits(body, otherwise)
        case ast.With(body=body) | ast.AsyncWith(body=body):
            return exits(body)
        case ast.Try(body=body, handlers=handlers, orelse=otherwise, finalbody=at_last):
            last = exits(at_last)
            tried = exits(body, *(handler.body for handler in handlers))
            if otherwise and tried & FALLS:
                tried = (tried - FALLS) | exits(otherwise) | (FALLS if handlers else frozenset())
            return (last - FALLS) | tried if last & FALLS else last
        case ast.Match(cases=cases):
            return exits(*(case.body for case in cases)) | FALLS
        case ast.For(body=body) | ast.AsyncFor(body=body) | ast.While(body=body):
            returns = any(isinstance(node, ast.Return) for inner in body for node in ast.walk(inner))
            return FALLS | (LEAVES if returns else frozenset())
        case _:
            return FALLS


def _raises_again(raised: ast.expr | None, name: str | None, scope: Scope) -> bool:
    if raised is None:
        return True
    if isinstance(raised, ast.Name) and raised.id == name:
        return True
    return scope.dotted(raised.func if isinstance(raised, ast.Call) else raised) in NOT_TO_SWALLOW
