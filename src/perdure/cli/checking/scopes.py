"""The functions of a module, and what names mean in each: imports, functions, or something that is bound there."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
OTHER_CODE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class Scope:
    """A module (without `outer`) or a function: the names it binds, and the functions defined in it."""

    def __init__(self, node: ast.Module | FunctionNode, outer: Scope | None = None) -> None:
        self.node, self.outer = node, outer
        self.parameters = [] if isinstance(node, ast.Module) else parameters_of(node)
        self.functions: dict[str, Scope] = {}
        self.all_functions: list[Scope] = []
        self._imports: dict[str, str] = {}
        self._bound = {*self.parameters}
        for inner in own_nodes(node):
            self._read(inner)

    def _read(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._add(node)
            case ast.ClassDef(name=name):
                self._bound.add(name)
                self._read_class(node)
            case ast.Import(names=names):
                for alias in names:
                    first = alias.name.partition(".")[0]
                    self._imports[alias.asname or first] = alias.name if alias.asname else first
            case ast.ImportFrom(module=module, names=names, level=0) if module:
                for alias in names:
                    self._imports[alias.asname or alias.name] = f"{module}.{alias.name}"
            case ast.Name(id=name, ctx=ast.Store()) | ast.ExceptHandler(name=str(name)):
                self._bound.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                self._bound.add(name)

    def _read_class(self, node: ast.ClassDef) -> None:
        for inner in own_nodes(node):
            if isinstance(inner, ast.ClassDef):
                self._read_class(inner)
            elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                self._all_of(Scope(inner, self))  # what is defined in a class is not found by its name alone

    def _add(self, node: FunctionNode) -> None:
        scope = Scope(node, self)
        self._all_of(scope)
        if not isinstance(node, ast.Lambda):
            self.functions[node.name] = scope

    def _all_of(self, scope: Scope) -> None:
        self.all_functions += [scope, *scope.all_functions]

    # --- what names mean --------------------------------------------------------------------------------------

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)

    def binds(self, name: str) -> bool:
        return name in self._bound or name in self._imports or name in self.functions

    def function(self, name: str) -> Scope | None:
        """The function of this module that a name means here."""
        if name in self._bound:
            return None
        if name in self.functions:
            return self.functions[name]
        return None if name in self._imports or self.outer is None else self.outer.function(name)

    def dotted(self, expression: ast.expr) -> str | None:
        """The full name of what an expression means here, if it leads to an import or a builtin:
        `datetime.datetime.now` of `dt.now`."""
        match expression:
            case ast.Name(id=name):
                return self._imported(name)
            case ast.Attribute(value=value, attr=attribute):
                stem = self.dotted(value)
                return None if stem is None else f"{stem}.{attribute}"
            case _:
                return None

    def _imported(self, name: str) -> str | None:
        if name in self._imports:
            return self._imports[name]
        if self.binds(name):
            return None
        if self.outer is not None:
            return self.outer._imported(name)
        return name if hasattr(builtins, name) else None

    def loads(self, name: str) -> bool:
        """Whether a name is read anywhere in it, functions inside included."""
        return any(
            isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) for n in ast.walk(self.node)
        )


def parameters_of(node: FunctionNode) -> list[str]:
    """Positional ones first, in order."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [argument.arg for argument in named if argument is not None]


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What is in it, in order, without what is in functions and classes inside; those themselves are given."""
    inside: list[ast.AST] = []
    if isinstance(node, ast.Lambda):
        inside = [node.body]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = [*node.body]
    else:
        inside = [*ast.iter_child_nodes(node)]
    for child in inside:
        yield child
        if not isinstance(child, OTHER_CODE):
            yield from own_nodes(child)


def first_line(node: FunctionNode) -> int:
    """Where Python says that a function begins: at its first decorator."""
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])
