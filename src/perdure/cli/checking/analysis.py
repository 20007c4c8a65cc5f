"""The check itself: the source of a module and the functions that are processes in it, to findings. It imports nothing
of what it reads and runs nothing of it.

It follows the code of a process into functions of the same module that it gives its context to, and into functions
inside it. What runs in a step is left alone: there everything is allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from perdure.cli.checking.findings import (
    SWALLOWED_FIX,
    WHY,
    Finding,
    Rule,
    key_fix,
    task_fix,
    task_why,
    unawaited_fix,
    unrecorded_fix,
)
from perdure.cli.checking.handlers import NOT_TO_SWALLOW, caught, swallows
from perdure.cli.checking.operations import KEYED, Code, ContextKind, calls_that_make, shown
from perdure.cli.checking.scopes import OTHER_CODE, Scope, first_line, own_nodes
from perdure.cli.checking.unrecorded import recorded_instead

TASKS = {
    f"asyncio.{name}"
    for name in ("create_task", "ensure_future", "gather", "wait", "wait_for", "shield", "as_completed",
                 "run_coroutine_threadsafe")
}  # fmt: skip


class Entry(NamedTuple):
    """A function that is the code of a process: the line it begins at (its first decorator's), and its context."""

    process: str
    line: int
    context: str
    is_blocking: bool


class NotFound(LookupError):
    """The source has no function where one was said to be."""


def findings_in(source: str, file: str, entries: Iterable[Entry]) -> list[Finding]:
    """What is to be said of these processes' code, in order of the lines. Raises SyntaxError, or NotFound."""
    module = Scope(ast.parse(source, file))
    found: set[Finding] = set()
    said: set[tuple[int, int, str]] = set()
    for entry in entries:
        check = _Check(file, entry, said)
        check.begin(_function_at(module, entry))
        found |= check.found
    return sorted(found)


def _function_at(module: Scope, entry: Entry) -> Scope:
    for scope in module.all_functions:
        assert not isinstance(scope.node, ast.Module)
        if first_line(scope.node) == entry.line and entry.context in scope.parameters:
            return scope
    raise NotFound(f"no function with a parameter {entry.context!r} begins at line {entry.line}")


class _Check:
    """One process: the codes that were read, and what was found. What was said before is not said again."""

    def __init__(self, file: str, entry: Entry, said: set[tuple[int, int, str]]) -> None:
        self.found: set[Finding] = set()
        self._file, self._entry, self._said = file, entry, said
        self._read: set[tuple[ast.AST, frozenset[tuple[str, str]], bool]] = set()

    def begin(self, scope: Scope) -> None:
        kind: ContextKind = "blocking" if self._entry.is_blocking else "async"
        self.read(Code(scope, {self._entry.context: kind}), None, is_entry=True)

    def read(self, code: Code, repeated: Repeated | None, *, is_entry: bool = False) -> None:
        """Read the code of a function, once for each way it is used. `repeated`: how it is called more than once."""
        use = (code.scope.node, frozenset(code.contexts.items()), repeated is not None)
        if use in self._read:
            return
        self._read.add(use)
        reader = _Reader(self, code, repeated, is_entry)
        for node in _body(code.scope):
            reader.visit(node)
        for inner in code.scope.functions.values():  # given away to be called by others
            own: dict[str, ContextKind] = {name: "async" for name in inner.parameters if name in code.contexts}
            uses_context = any(inner.loads(name) for name in code.contexts)
            if uses_context and inner not in reader.step_functions and not self._has_read(inner):
                self.read(code.of(inner, own, code), None)

    def _has_read(self, scope: Scope) -> bool:
        return any(node is scope.node for node, *_ in self._read)

    def say(
        self, node: ast.expr | ast.stmt | ast.ExceptHandler, rule: Rule, what: str, fix: str, why: str | None = None
    ) -> None:
        place = (node.lineno, node.col_offset, rule)
        if place not in self._said:
            self._said.add(place)
            process, why = self._entry.process, why or WHY[rule]
            self.found.add(Finding(self._file, node.lineno, node.col_offset + 1, rule, process, what, why, fix))


class Repeated(NamedTuple):
    """How some code comes to run more than once, in words; `by_calls`: as what it stands in is called repeatedly."""

    how: str
    by_calls: bool = False


class _Reader(ast.NodeVisitor):
    """Reads the code of one function, statement by statement."""

    def __init__(self, check: _Check, code: Code, repeated: Repeated | None, is_entry: bool) -> None:
        self._check, self._code, self._scope, self._is_entry = check, code, code.scope, is_entry
        self._repeated = repeated
        self.step_functions: set[Scope] = set()

    # --- other code, and what is done more than once ----------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Only what is done where it is defined; its code is read where it is called."""
        for now in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
            self.visit(now)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Nobody knows here where it is called."""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """The same for its methods."""

    def _repeatedly(self, how: str, nodes: Iterable[ast.AST]) -> None:
        before, self._repeated = self._repeated, self._repeated or Repeated(how)
        for node in nodes:
            self.visit(node)
        self._repeated = before

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._repeatedly("in a loop", node.body)
        for after in node.orelse:
            self.visit(after)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self._repeatedly("in a loop", [node.test, *node.body])
        for after in node.orelse:
            self.visit(after)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        first, *others = node.generators
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self.visit(first.iter)
        self._repeatedly("in a comprehension", [*first.ifs, *others, *made])

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp

    # --- calls ------------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        operation = self._code.operation(node)
        if operation is not None:
            self._check_key(node, operation.method)
            if operation.method == "step":
                return self._visit_step(node)
            if operation.method == "branches":
                return self._visit_branches(node)
        else:
            self._check_task(node)
            self._check_unrecorded(node)
            code = self._code.called(node)
            if code is not None:
                self._check.read(code, self._called_again(node))
        self.generic_visit(node)
        return None

    def _called_again(self, node: ast.Call) -> Repeated | None:
        if self._repeated is None or self._repeated.by_calls:
            return self._repeated
        return Repeated(f"in a function that is called {self._repeated.how} at line {node.lineno}", by_calls=True)

    def _visit_step(self, node: ast.Call) -> None:
        """The arguments are made here; the function, and functions among the arguments, run in the step."""
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            scope = self._scope.function(argument.id) if isinstance(argument, ast.Name) else None
            if scope is not None:
                self.step_functions.add(scope)
            else:
                self.visit(argument)

    def _visit_branches(self, node: ast.Call) -> None:
        """Each function gets a context with keys of its own, so that it may be given several times."""
        for argument in node.args:
            for scope, bound in self._functions_given(argument):
                if len(scope.parameters) > bound:
                    context: dict[str, ContextKind] = {scope.parameters[bound]: "async"}
                    self._check.read(self._code.of(scope, context, self._code.around(scope)), None)
            self.visit(argument)

    def _functions_given(self, argument: ast.AST, bound: int = 0) -> Iterator[tuple[Scope, int]]:
        """The functions in an argument, and how many of their parameters are bound already."""
        match argument:
            case ast.Name(id=name) if (scope := self._scope.function(name)) is not None:
                yield scope, bound
            case ast.Lambda():
                yield from ((scope, bound) for scope in self._scope.all_functions if scope.node is argument)
            case ast.Call(func=function, args=[given, *others]):
                if self._scope.dotted(function) == "functools.partial":
                    yield from self._functions_given(given, len(others))
            case ast.Starred(value=inside) | ast.GeneratorExp(elt=inside) | ast.ListComp(elt=inside):
                yield from self._functions_given(inside)
            case ast.List(elts=listed) | ast.Tuple(elts=listed):
                for each in listed:
                    yield from self._functions_given(each)

    def _check_key(self, node: ast.Call, method: str) -> None:
        named = any(keyword.arg in ("key", None) for keyword in node.keywords)  # **options may hold one
        if self._repeated is not None and method in KEYED and not named:
            self._check.say(
                node, "key", f"{shown(node)} {self._repeated.how} has no key", key_fix(ast.unparse(node.func))
            )

    def _check_task(self, node: ast.Call) -> None:
        made_by = self._scope.dotted(node.func)
        if made_by not in TASKS and not (isinstance(node.func, ast.Attribute) and node.func.attr == "create_task"):
            return
        if any(self._code.holds_operation(argument) for argument in node.args):
            name = ast.unparse(node.func)
            said = f"{name}(…) is given a durable operation"
            self._check.say(node, "task", said, task_fix(name), task_why(name))

    def _check_unrecorded(self, node: ast.Call) -> None:
        name = self._scope.dotted(node.func)
        instead = None if name is None else recorded_instead(name, has_arguments=bool(node.args or node.keywords))
        if instead is not None:
            fix = unrecorded_fix(instead, is_blocking=self._is_blocking())
            self._check.say(node, "unrecorded", f"{ast.unparse(node.func)}() outside of a step", fix)

    def _is_blocking(self) -> bool:
        """Whether nothing can be awaited here."""
        code: Code | None = None if self._scope.is_async else self._code
        while code is not None:
            if "blocking" in code.contexts.values():
                return True
            code = code.outer
        return False

    # --- made and not awaited ---------------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        self._check_awaited(node.value, "is never awaited")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        match node.targets:
            case [ast.Name(id=name)] if not self._scope.loads(name):
                self._check_awaited(node.value, f"is put into {name!r} and never awaited")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if self._is_entry and node.value is not None:
            self._check_awaited(node.value, "is returned by the process and never awaited")
        self.generic_visit(node)

    def _check_awaited(self, value: ast.expr, how: str) -> None:
        for call in calls_that_make(value):
            operation, code = self._code.operation(call), self._code.called(call)
            needs_await = operation.needs_await if operation else code and code.scope.is_async and code.is_durable()
            if needs_await:
                is_object = operation is not None and operation.is_object
                fix = unawaited_fix(shown(call), is_operation=is_object, is_blocking=self._is_blocking())
                self._check.say(call, "unawaited", f"{shown(call)} {how}", fix)

    # --- handlers ---------------------------------------------------------------------------------------------

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        if self._is_around_operations(node.body):
            for handler in node.handlers:
                what = caught(handler.type, self._scope)
                if what is not None and swallows(handler, self._scope):
                    said = f"{what} around durable operations may end without raising again"
                    self._check.say(handler, "swallowed", said, SWALLOWED_FIX)
        self.generic_visit(node)

    visit_TryStar = visit_Try

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            match item.context_expr:
                case ast.Call(func=function, args=kinds) as call if (
                    self._scope.dotted(function) == "contextlib.suppress"
                ):
                    bad = [ast.unparse(kind) for kind in kinds if self._scope.dotted(kind) in NOT_TO_SWALLOW]
                    if bad and self._is_around_operations(node.body):
                        said = f"{bad[0]} is suppressed around durable operations"
                        self._check.say(call, "swallowed", said, SWALLOWED_FIX)
        self.generic_visit(node)

    def _is_around_operations(self, body: Sequence[ast.stmt]) -> bool:
        statements = [statement for statement in body if not isinstance(statement, OTHER_CODE)]
        return self._code.does_operations(node for inner in statements for node in (inner, *own_nodes(inner)))


def _body(scope: Scope) -> Sequence[ast.AST]:
    node = scope.node
    return [node.body] if isinstance(node, ast.Lambda) else node.body
