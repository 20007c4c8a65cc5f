"""What in the code of a process is its context, an operation made with it, or a name that holds one."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from perdure.cli.checking.scopes import Scope, own_nodes
from perdure.cli.text import cut

ContextKind = Literal["async", "blocking"]
"""What `ctx.step(…)` gives: something to await, or (in a plain `def`) the value."""

OPERATIONS = {
    "step",
    "sleep",
    "wait",
    "start",
    "command",
    "now",
    "uuid",
    "random",
    "gather",
    "race",
    "branches",
    "emit",
    "version",
}
KEYED = {"step", "sleep", "wait", "start", "command", "emit"}
CHILDREN = {"start", "command"}
COROUTINES = {"gather", "race", "branches", "emit", "version"}


class Operation(NamedTuple):
    method: str
    needs_await: bool

    @property
    def is_object(self) -> bool:
        """Whether it may be given to gather or race."""
        return self.needs_await and self.method not in COROUTINES


Use = tuple[ast.AST, frozenset[tuple[str, ContextKind]], "Code | None"]
Known = dict[Use, "Code"]


def _use_of(scope: Scope, contexts: Mapping[str, ContextKind], outer: Code | None) -> Use:
    return scope.node, frozenset(contexts.items()), outer


class Code:
    """The code of one function, as it runs with these parameters as contexts. `outer` is the code around it, whose
    contexts it may use as well; `known` the codes that were made so far, as functions may call themselves."""

    def __init__(
        self, scope: Scope, contexts: Mapping[str, ContextKind], outer: Code | None = None, known: Known | None = None
    ) -> None:
        self.scope, self.outer = scope, outer
        self.contexts: dict[str, ContextKind] = dict(contexts)
        self._known: Known = {} if known is None else known
        self._known[_use_of(scope, contexts, outer)] = self
        self._children: set[str] = set()
        self._holders: set[str] = set()
        for node in own_nodes(scope.node):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self._assigned(name, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self._assigned(name, value)
                case ast.AugAssign(target=ast.Name(id=name), value=value) if self.holds_operation(value):
                    self._holders.add(name)
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append" | "add" | "extend"), args=args):
                    if any(self.holds_operation(argument) for argument in args):
                        self._holders.add(name)

    def _assigned(self, name: str, value: ast.expr) -> None:
        kind = self.context_of(value)
        made = value.value if isinstance(value, ast.Await) else value
        operation = self.operation(made) if isinstance(made, ast.Call) else None
        if kind is not None:
            self.contexts[name] = kind
        elif operation is not None and operation.method in CHILDREN and operation.needs_await == (made is not value):
            self._children.add(name)
        elif self.holds_operation(value):
            self._holders.add(name)

    # --- what an expression is --------------------------------------------------------------------------------

    def context_of(self, expression: ast.expr) -> ContextKind | None:
        match expression:
            case ast.Name(id=name) if name in self.contexts:
                return self.contexts[name]
            case ast.Name(id=name) if self.outer is not None and not self.scope.binds(name):
                return self.outer.context_of(expression)
            case ast.Attribute(value=value, attr="later") if self.context_of(value) == "blocking":
                return "async"
            case _:
                return None

    def operation(self, call: ast.Call) -> Operation | None:
        """The operation that a call makes, if it makes one."""
        if not isinstance(call.func, ast.Attribute):
            return None
        of, method = call.func.value, call.func.attr
        kind = self.context_of(of)
        if kind is not None:
            return Operation(method, kind == "async") if method in OPERATIONS else self._result(kind, method)
        is_child = method == "result" and isinstance(of, ast.Name) and self._is_child(of.id)
        return Operation("result", True) if is_child else None

    @staticmethod
    def _result(kind: ContextKind, method: str) -> Operation | None:
        return Operation(method, False) if kind == "blocking" and method == "result" else None

    def _is_child(self, name: str) -> bool:
        if self.scope.binds(name) or self.outer is None:
            return name in self._children
        return self.outer._is_child(name)

    def _is_holder(self, name: str) -> bool:
        if self.scope.binds(name) or self.outer is None:
            return name in self._holders
        return self.outer._is_holder(name)

    # --- functions of the module ------------------------------------------------------------------------------

    def called(self, call: ast.Call) -> Code | None:
        """The code of a function of this module that is called here with a context, or inside another's code."""
        scope = self.scope.function(call.func.id) if isinstance(call.func, ast.Name) else None
        if scope is None:
            return None
        given = dict(zip(scope.parameters, call.args, strict=False))
        given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
        contexts = {name: kind for name, value in given.items() if (kind := self.context_of(value)) is not None}
        around = self.around(scope)
        return self.of(scope, contexts, around) if contexts or around is not None else None

    def of(self, scope: Scope, contexts: Mapping[str, ContextKind], around: Code | None) -> Code:
        """The code of another function, as it is used here."""
        return self._known.get(_use_of(scope, contexts, around)) or Code(scope, contexts, around, self._known)

    def around(self, scope: Scope) -> Code | None:
        """The code that a function was defined in, as far as it is known here."""
        code: Code | None = self
        while code is not None and code.scope is not scope.outer:
            code = code.outer
        return code

    # --- what does something durable --------------------------------------------------------------------------

    def holds_operation(self, expression: ast.AST) -> bool:
        """Whether what an expression gives is, or has in it, something durable that is still to be awaited."""
        match expression:
            case ast.Await() | ast.Lambda():
                return False
            case ast.Name(id=name):
                return self._is_holder(name)
            case ast.Call() as call:
                operation, code = self.operation(call), self.called(call)
                if operation is not None:
                    return operation.needs_await
                if code is not None and code.is_durable():
                    return True
        return any(self.holds_operation(inside) for inside in ast.iter_child_nodes(expression))

    def does_operations(self, nodes: Iterable[ast.AST], entered: frozenset[ast.AST] = frozenset()) -> bool:
        """Whether operations are made among these nodes, or in functions that are called there."""
        for node in nodes:
            if isinstance(node, ast.Call):
                if self.operation(node) is not None:
                    return True
                code = self.called(node)
                if code is not None and code.scope.node not in entered and code.is_durable(entered):
                    return True
        return False

    def is_durable(self, entered: frozenset[ast.AST] = frozenset()) -> bool:
        """Whether this code makes operations."""
        return self.does_operations(own_nodes(self.scope.node), entered | {self.scope.node})


def calls_that_make(value: ast.expr) -> list[ast.Call]:
    """The calls whose result is what an expression gives, or stands in it."""
    match value:
        case ast.Call():
            return [value]
        case ast.List(elts=listed) | ast.Tuple(elts=listed) | ast.Set(elts=listed):
            return [call for each in listed for call in calls_that_make(each)]
        case ast.ListComp(elt=each) | ast.SetComp(elt=each) | ast.GeneratorExp(elt=each):
            return calls_that_make(each)
        case ast.IfExp(body=one, orelse=other):
            return [*calls_that_make(one), *calls_that_make(other)]
        case _:
            return []


def shown(call: ast.Call) -> str:
    """A call in few words: `ctx.step(draft, …)`."""
    inside = [cut(ast.unparse(argument), 30) for argument in call.args[:1]]
    if len(call.args) > 1 or call.keywords:
        inside.append("…")
    return f"{ast.unparse(call.func)}({', '.join(inside)})"
