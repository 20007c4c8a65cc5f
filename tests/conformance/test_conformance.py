"""Every case of the contract, on every store that can do what the case needs."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from pathlib import Path

import pytest

import perdure.testing.conformance as conformance
from perdure.testing.conformance import Case, cases, run_case, runnable
from tests.conformance.stores import STORES, Store

RUNS = [
    pytest.param(store, case, id=f"{case.id}-{store.name}")
    for store in STORES
    for case in runnable(cases(), store.capabilities)
]


@pytest.mark.parametrize(("store", "case"), RUNS)
def test_the_store_does_what_the_contract_says(store: Store, case: Case, tmp_path: Path) -> None:
    asyncio.run(run_case(case, store.opener(tmp_path), store.capabilities))


def test_every_case_that_is_written_is_listed_once() -> None:
    modules = [
        importlib.import_module(f"perdure.testing.conformance.{found.name}")
        for found in pkgutil.iter_modules(conformance.__path__)
    ]
    written = {value.id for module in modules for value in vars(module).values() if isinstance(value, Case)}
    listed = [case.id for case in cases()]
    assert sorted(listed) == sorted(written)


def test_every_case_runs_on_some_store() -> None:
    covered = {case.id for store in STORES for case in runnable(cases(), store.capabilities)}
    assert covered == {case.id for case in cases()}
