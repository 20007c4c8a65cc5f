"""`import perdure` costs little: what only a surface, one store or an integration needs is loaded when it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED_ON_USE = ("click", "rich", "apsw", "asyncpg", "pydantic", "starlette")


def loaded_by(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return set(json.loads(ran.stdout))


@pytest.mark.parametrize("package", LOADED_ON_USE)
def test_importing_perdure_does_not_load(package: str, loaded: set[str]) -> None:
    assert package not in loaded


def test_importing_perdure_loads_perdure(loaded: set[str]) -> None:
    assert "perdure" in loaded


def test_what_is_loaded_would_be_seen() -> None:
    assert "click" in loaded_by("import click")


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_by("import perdure")
