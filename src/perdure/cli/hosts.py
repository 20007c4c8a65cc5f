"""Finds the host that MODULE:HOST names. The program's own mistakes are told as such, without a traceback."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType

from perdure.errors import InvalidRequest
from perdure.host import Host

FORM = "MODULE:HOST, for instance shop:host for `host = perdure.Host(...)` in shop.py"


class InvalidHost(InvalidRequest):
    """MODULE:HOST doesn't lead to a host."""

    given: str

    def __init__(self, given: str, problem: str, remedy: str) -> None:
        super().__init__(f"{given}: {problem}. {remedy}", given=given)


def find_host(given: str) -> Host:
    """Import MODULE, with the working directory on the path, and return its attribute HOST.

    Raises InvalidHost when the form is wrong, the module can't be imported, or the attribute is no Host.
    """
    module_name, separator, attribute = given.partition(":")
    if not separator or not module_name or not attribute:
        raise InvalidHost(given, "this names no host", f"Expected {FORM}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(given, module_name)
    found: object = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if isinstance(found, Host):
        return found
    there = [name for name, value in vars(module).items() if isinstance(value, Host)]
    listed = f"It has: {', '.join(f'{module_name}:{name}' for name in there)}." if there else "It has none."
    problem = f"{attribute!r} of {module_name} is " + ("missing" if found is None else "not a perdure.Host")
    raise InvalidHost(given, problem, listed)


def _import(given: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            where = f"Looked in {os.getcwd()} and the Python path."
            raise InvalidHost(given, f"there is no module {error.name!r}", where) from error
        raise _broken(given, module_name, error) from error
    except Exception as error:  # whatever the program's own code raises while it is imported
        raise _broken(given, module_name, error) from error


def _broken(given: str, module_name: str, error: Exception) -> InvalidHost:
    if isinstance(error, SyntaxError):
        place = f"{error.filename} line {error.lineno}"
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
        place = f"{frames[-1].filename} line {frames[-1].lineno}"
    problem = f"importing {module_name} raised {type(error).__name__}: {error} ({place})"
    return InvalidHost(given, problem, "PERDURE_DEBUG=1 shows the traceback.")
