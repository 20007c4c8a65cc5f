"""The driver by itself, without `Host`: a registry, an engine of our own, sinks, run handles and attaches.

Whatever it prints it has also asserted. Run it: python examples/driver_only.py
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path

import msgspec

from perdure import Event
from perdure.contract import verbs
from perdure.contract.ports import AdmissionReport, Run
from perdure.contract.registry import Registry
from perdure.model.leases import Owner
from perdure.model.outcomes import Outcome, ProcessAwaitOutput
from perdure.model.record import ProcessRecord
from perdure.model.registration import Definition, Registration
from perdure.runtime.driver import ProcessWorkDriver
from perdure.runtime.worker import DurableProcessWorker
from perdure.stores.sqlite.store import SqliteRegistry
from perdure.transitions.commands import LeaseRight, WorkflowKey

GREET, COUNT = Definition("example", "greet"), Definition("example", "count")


class Greeter:
    """An engine: what it can run, and how. `prepare` enters no user code; the coroutine it returns does."""

    definitions = (GREET,)

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def prepare(self, run: Run) -> Coroutine[None, None, msgspec.Raw]:
        return self.greet(run, msgspec.json.decode(run.record.registration.input, type=str))

    async def greet(self, run: Run, name: str) -> msgspec.Raw:
        right = LeaseRight(run.lease.key)
        await verbs.append_event(self.registry, run.record.id, "progress", {"greeting": name}, execution=right)
        return verbs.as_raw(f"hello {name}")


class Seen:
    """A sink: freshness, never truth. It may miss an event; the log never does."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def emit(self, event: Event) -> None:
        self.events.put_nowait(event)


class OneByOne:
    """A run handle of our own: one pass that claims a row, does its work at once, and writes its end."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.owner, self.passes = registry, Owner("one-by-one", "incarnation-1"), 0

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        self.passes += 1
        receipt = await verbs.claim_next(
            self.registry, self.owner, claim_id=f"claim-{self.passes}", token="secret", definitions=(COUNT,)
        )
        for claimed in receipt.claimed:
            length = len(msgspec.json.decode(claimed.record.registration.input, type=str))
            await verbs.complete(
                self.registry, claimed.record.id, verbs.completed(length), LeaseRight(claimed.lease.key)
            )
        return AdmissionReport("scanned", reason, admitted=tuple(c.record.id for c in receipt.claimed))


class Elsewhere:
    """An attach: the durable wait of an engine that some rows were admitted to. This one ends them when asked."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def serves(self, record: ProcessRecord) -> bool:
        return record.state.admitted is not None

    async def await_terminal(self, process_id: str) -> Outcome:
        key, outcome = WorkflowKey(process_id, "key-1", "invocation-1"), verbs.completed("done elsewhere")
        await verbs.start(self.registry, key, Owner("elsewhere", "invocation-1"))
        return (await verbs.complete(self.registry, process_id, outcome, key)).record.outcome or outcome


def said(outcome: ProcessAwaitOutput, value: str | int) -> str:
    assert outcome == verbs.completed(value)
    return f"completed with {value!r}"


async def main(database: Path) -> None:
    registry: Registry = await SqliteRegistry.open(database)

    seen, worker = Seen(), DurableProcessWorker(registry, [Greeter(registry)], name="worker-1")
    driver = ProcessWorkDriver(registry, worker, sink=seen)
    ada = Registration(id="greet-ada", definition=GREET, recovery="rerunnable", input=verbs.as_raw("Ada"))
    await verbs.register(registry, ada)
    assert (await verbs.register(registry, ada)).answer == "unchanged"  # the same id and content: the same process
    report = await driver.claim_and_run_pending("registered")
    assert report.admitted == ("greet-ada",)  # admitted, not yet ended
    async with asyncio.timeout(10):
        progress = await driver.await_event("greet-ada", "progress")
        outcome = await driver.await_terminal("greet-ada")
        log = (await registry.events_after("greet-ada", 0)).events  # the truth, once more from its beginning
        pushed = [await seen.events.get() for _ in log]
    assert [event.type for event in log] == ["process.started", "progress", "process.completed"]
    assert pushed == list(log)
    print(f"worker:     event {progress.sequence} was {progress.type}; {said(outcome, 'hello Ada')}")

    await verbs.register(registry, Registration(id="count-1", definition=COUNT, recovery="rerunnable", input=ada.input))
    counting = ProcessWorkDriver(registry, OneByOne(registry))
    assert (await counting.claim_and_run_pending("by hand")).admitted == ("count-1",)
    async with asyncio.timeout(10):
        print(f"own handle: {said(await counting.await_terminal('count-1'), 3)}")

    attached = driver.with_attach(Elsewhere(registry))  # a copy: same registry, hub, worker and scan in flight
    await verbs.register(registry, Registration(id="far-1", definition=GREET, recovery="rerunnable", input=ada.input))
    await verbs.admit(registry, "far-1", "key-1")
    assert (await attached.claim_and_run_pending("admitted")).admitted == ()  # an engine has it: no worker may
    async with asyncio.timeout(10):
        print(f"attach:     {said(await attached.await_terminal('far-1'), 'done elsewhere')}")

    reports = await asyncio.gather(driver.claim_and_run_pending("one"), attached.claim_and_run_pending("two"))
    assert [report.intake for report in reports] == ["scanned", "coalesced"]
    print(f"two drives: {' and '.join(report.intake for report in reports)}")

    await worker.drain()
    await registry.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "work.db")))
