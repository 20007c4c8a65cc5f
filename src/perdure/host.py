"""The facade: define processes, start them, wait for them, serve them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

import msgspec

from perdure import canonical
from perdure.clock import Clock, SystemClock
from perdure.contract.moments import Moments
from perdure.contract.ports import AdmissionReport, Engine, EventSink, WorkerFault
from perdure.contract.registry import Registry
from perdure.durations import milliseconds
from perdure.engines.command.engine import CommandEngine
from perdure.engines.command.request import RESULT, CommandOptions, CommandResult, command_registration
from perdure.engines.python.code import PythonCode
from perdure.engines.python.context import ProcessContext
from perdure.engines.python.definitions import Process, define
from perdure.engines.python.engine import PythonEngine
from perdure.engines.python.signals import Signal
from perdure.engines.python.support import PARKING_S, Support
from perdure.engines.python.sync_context import SyncContext
from perdure.errors import (
    InvalidDefinition,
    InvalidOption,
    OutcomeUnknown,
    PerdureError,
    UnknownDefinition,
    WrongHostUse,
)
from perdure.hosting.handle import Handle
from perdure.hosting.serving import Serving
from perdure.hosting.urls import open_registry
from perdure.ids import Ids, SystemIds, check_process_id
from perdure.model.outcomes import Completed, Outcome
from perdure.model.queries import Filter, Page, RecordPage
from perdure.model.record import ProcessRecord
from perdure.model.registration import (
    DEFAULT_PRIORITY,
    NULL,
    Definition,
    Identity,
    Recovery,
    Registration,
    RetryPolicy,
)
from perdure.runtime.driver import ProcessWorkDriver
from perdure.runtime.hub import ChangeHub
from perdure.runtime.live import LiveHub
from perdure.runtime.options import WorkerOptions
from perdure.runtime.progress import ProgressBook
from perdure.runtime.spawner import LoopSpawner, Spawner
from perdure.runtime.watch import SinkPump, log_fault, watch
from perdure.runtime.worker import Drained, DurableProcessWorker
from perdure.transitions.commands import (
    ClaimReceipt,
    Complete,
    ExternalOwner,
    Receipt,
    RecordCallerDeparture,
    Register,
)
from perdure.transitions.registering import check_registration

if TYPE_CHECKING:
    from perdure.hosting.portal import Portal

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class Host:
    """A program's door to durable processes.

        host = Host("sqlite:///work.db")

        @host.process(recovery="rerunnable")
        async def greet(ctx: ProcessContext, name: str) -> str:
            return f"hello {name}"

        async with host:
            run = await host.start(greet, "world", id="greeting-1")
            print(await run.result())

    While it is open it runs what it defines, and commands (`commands=False`: it leaves those to others; `work=False`:
    it only starts, reads and waits). Nothing is opened, and no
    task or thread started, before `async with` or `open()`. Several hosts in one program don't know of each other.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        work: bool = True,
        options: WorkerOptions | None = None,
        sink: EventSink | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        spawner: Spawner | None = None,
        registry: Registry | None = None,
        moments: Moments | None = None,
        parking: timedelta | float = PARKING_S,
        commands: bool = True,
    ) -> None:
        self.url, self.options = url, options or WorkerOptions()
        self.name = name or _program_name()
        self._work, self._sink, self._given_registry = work, sink, registry
        self._moments, self._commands = moments, commands
        self._parking_s = milliseconds(parking) / 1000
        self._clock, self._ids = clock or SystemClock(), ids or SystemIds()
        self._given_spawner, self._spawner = spawner, spawner or LoopSpawner()
        self._processes: dict[Definition, Process[Any, Any]] = {}
        self._codes: dict[Definition, PythonCode] = {}
        self._pump: SinkPump | None = None
        self._unwatch: Callable[[], None] = _nothing_watched
        self._serving: Serving | None = None
        self._stopping: asyncio.Event | None = None

    # --- definitions ------------------------------------------------------------------------------------------

    @overload
    def process(
        self, *, recovery: Literal["rerunnable"], name: str | None = ..., version: int = ...,
        retry: RetryPolicy | None = ..., max_deaths: int | None = ..., timeout: timedelta | None = ...,
        queue: str = ..., signals: Sequence[Signal[Any]] = ...,
    ) -> ProcessDecorator: ...  # fmt: skip
    @overload
    def process(
        self, *, recovery: Literal["owner_bound"], name: str | None = ..., version: int = ...,
        max_deaths: int | None = ..., timeout: timedelta | None = ..., queue: str = ...,
        signals: Sequence[Signal[Any]] = ...,
    ) -> ProcessDecorator: ...  # fmt: skip
    def process(
        self,
        *,
        recovery: Recovery | None = None,
        name: str | None = None,
        version: int = 1,
        retry: RetryPolicy | None = None,
        max_deaths: int | None = None,
        timeout: timedelta | None = None,
        queue: str = "default",
        signals: Sequence[Signal[Any]] = (),
    ) -> ProcessDecorator:
        """Define a process: a function `(ctx)` or `(ctx, value)`, async or not.

        `recovery` must be declared: "rerunnable" or "owner_bound". `retry` restarts it when its code raises
        (rerunnable only). `max_deaths` bounds how many lost owners are survived (default 5). `timeout` is a deadline
        from the start on. `signals` are those it takes; the ones that its code names need not be listed. Everything
        wrong with the function or an option raises here, at import.
        """
        return ProcessDecorator(
            self, name=name, version=version, recovery=recovery, retry=retry, max_deaths=max_deaths, timeout=timeout,
            queue=queue, signals=signals,
        )  # fmt: skip

    def add(self, process: Process[Any, Any]) -> None:
        """Make a definition known to this host. A name and version can be defined once."""
        if process.definition in self._processes:
            raise InvalidDefinition(process.name, f"version {process.definition.version} is defined already")
        refusal = check_registration(self._registration(process, "check", NULL, None, 0, None, DEFAULT_PRIORITY, None))
        if refusal is not None:
            raise refusal
        self._processes[process.definition] = process
        self._codes[process.definition] = process.code

    @property
    def processes(self) -> tuple[Process[Any, Any], ...]:
        """What this host defines, in the order of definition."""
        return tuple(self._processes.values())

    def find_process(self, name: str) -> Process[Any, Any]:
        """The newest version of a definition by name; raises UnknownDefinition."""
        versions = [process for definition, process in self._processes.items() if definition.name == name]
        if not versions:
            raise UnknownDefinition(name, sorted({d.name for d in self._processes}))
        return max(versions, key=lambda process: process.definition.version)

    # --- opening and closing ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store and, if this host works, begin to run what is due. Raises the store's typed errors."""
        if self._serving is not None:
            raise WrongHostUse("this host is open already; use one `async with` per host")
        if self._given_spawner is None:
            self._spawner = LoopSpawner(self.options.concurrency + 4)  # the options may have been replaced since
        registry = self._given_registry or await open_registry(self.url, self._clock, self._moments)
        try:
            serving = self._assemble(registry)
            await serving.start()
        except BaseException:
            self._unwatch()
            await self._close_registry(registry)
            raise
        self._serving, self._stopping = serving, asyncio.Event()

    def _assemble(self, registry: Registry) -> Serving:
        hub, live = ChangeHub(), LiveHub(registry.live_wire)
        self._pump = SinkPump(self._sink, self._spawner) if self._sink is not None else None
        self._unwatch = watch(registry, hub, self._pump)
        worker = None
        progress = ProgressBook(registry, self._spawner, self._report, live.hint_progress)
        if self._work:
            support = Support(
                registry, self._clock, self._ids, hub.listen, hub.unlisten, self._spawner.spawn,
                self._spawner.in_thread, live.open_run, progress.note, progress.commit, self._parking_s,
            )  # fmt: skip
            engines: list[Engine] = [PythonEngine(support, self._codes)]
            if self._commands:
                engines.append(CommandEngine(support, self.options.cancel_grace_ms))
            worker = DurableProcessWorker(
                registry, engines, name=self.name, options=self.options, clock=self._clock, ids=self._ids,
                spawner=self._spawner, report=self._report, moments=self._moments, commit=progress.commit,
            )  # fmt: skip
        driver = ProcessWorkDriver.from_watched(registry, hub, worker or _NoWorker(), spawner=self._spawner)
        return Serving(registry, driver, worker, live, progress, self._clock, self._spawner, self._report)

    async def close(self, *, grace: timedelta | None = None) -> tuple[Drained, ...]:
        """Drain and close: see DurableProcessWorker.drain. Safe to call twice."""
        if self._serving is None:
            return ()
        serving, self._serving = self._serving, None
        try:
            drained = await serving.stop(None if grace is None else milliseconds(grace))
        finally:
            self._unwatch()
            if self._pump is not None:
                await self._pump.flush(1.0)
                self._pump.stop()
            await self._close_registry(serving.registry)
            self._spawner.close()
        return drained

    async def _close_registry(self, registry: Registry) -> None:
        if self._given_registry is None:
            await registry.close()

    async def __aenter__(self) -> Host:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def serve(self) -> None:
        """Serve until `stop()` is called or the task is cancelled; opens the host if it isn't open, and closes it."""
        if self._serving is None:
            await self.open()
        assert self._stopping is not None
        try:
            await self._stopping.wait()
        finally:
            await self.close()

    def stop(self) -> None:
        """Make `serve()` drain and return. Event loop only."""
        if self._stopping is not None:
            self._stopping.set()

    @property
    def sync(self) -> Portal:
        """This host for callers without async: `with host.sync as portal:` opens it on a thread of the portal's own."""
        from perdure.hosting.portal import Portal

        return Portal(self, self._spawner)

    def _report(self, fault: WorkerFault) -> None:
        if self._pump is not None:
            self._pump.report(fault)
        else:
            log_fault(fault)

    @property
    def _open(self) -> Serving:
        if self._serving is None:
            raise WrongHostUse("this host is not open: use it inside `async with host:`")
        return self._serving

    @property
    def driver(self) -> ProcessWorkDriver:
        """The driver beneath; for hosts that drive by themselves."""
        return self._open.driver

    @property
    def registry(self) -> Registry:
        """The registry beneath: commands and reads."""
        return self._open.registry

    @property
    def worker(self) -> DurableProcessWorker | None:
        return self._open.worker

    # --- starting ---------------------------------------------------------------------------------------------

    @overload
    async def start(
        self, process: Process[None, OutputT], *, id: str | None = ..., delay: timedelta | float | None = ...,
        deadline: timedelta | float | None = ..., priority: int = ..., queue: str | None = ..., label: str | None = ...,
        connection: object | None = ...,
    ) -> Handle[OutputT]: ...  # fmt: skip
    @overload
    async def start(
        self, process: Process[InputT, OutputT], value: InputT, *, id: str | None = ...,
        delay: timedelta | float | None = ..., deadline: timedelta | float | None = ..., priority: int = ...,
        queue: str | None = ..., label: str | None = ..., connection: object | None = ...,
    ) -> Handle[OutputT]: ...  # fmt: skip
    async def start(
        self,
        process: Process[Any, Any],
        value: Any = None,
        *,
        id: str | None = None,
        delay: timedelta | float | None = None,
        deadline: timedelta | float | None = None,
        priority: int = DEFAULT_PRIORITY,
        queue: str | None = None,
        label: str | None = None,
        connection: object | None = None,
    ) -> Handle[Any]:
        """Start a process, durably: once this returns it will run, whatever happens to this program.

        Idempotent by `id`: the same content is the same process, other content raises RegistrationConflict; without
        an id each call is a new process. `delay` and `deadline` count from now (timedelta or seconds); `priority` is
        0 (first) to 9 (last). Raises InvalidPayload with the path if the value is not of the declared type.

        With `connection` it is started in your own transaction (PostgreSQL only): it is there, for you and for others,
        if and only if you commit. What is refused leaves your transaction usable. `connection` is one of asyncpg,
        psycopg 3 or SQLAlchemy 2 to the same database; raises NotTransactional for any other, and for one that is in
        no transaction. A connection that blocks is used on the calling thread.
        """
        serving = self._open
        registration = self._registration(
            process, self._ids.process_id() if id is None else id, self._input(process, value),
            None if deadline is None else milliseconds(deadline), 0 if delay is None else milliseconds(delay), queue,
            priority, label,
        )  # fmt: skip
        if connection is not None:  # who commits it, and when, is not known here: it is not claimed with its start
            command = Register(process_id=registration.id, registration=registration)
            await serving.registry.register_joined(command, connection)
            return Handle(serving, registration.id, process.output_type)
        live_at = await self._register(serving, registration)
        return Handle(serving, registration.id, process.output_type, live_at)

    async def start_many(
        self,
        process: Process[InputT, OutputT],
        values: Iterable[InputT],
        *,
        ids: Sequence[str] | None = None,
        delay: timedelta | float | None = None,
        priority: int = DEFAULT_PRIORITY,
        queue: str | None = None,
    ) -> list[Handle[OutputT]]:
        """Start one process per value, in few transactions. All values are checked before anything is written.

        With `ids` (as many as values) it is idempotent like `start`; the first conflict is raised, and the others
        were started.
        """
        serving, listed = self._open, list(values)
        if ids is not None and len(ids) != len(listed):
            raise InvalidOption("ids", f"{len(ids)} ids", f"as many as values ({len(listed)})")
        names = ids if ids is not None else [self._ids.process_id() for _ in listed]
        delay_ms = 0 if delay is None else milliseconds(delay)
        registrations = [
            self._registration(process, id, self._input(process, v), None, delay_ms, queue, priority, None)
            for id, v in zip(names, listed, strict=True)
        ]
        for registration in registrations:
            if refusal := check_registration(registration):
                raise refusal
        commands = [Register(process_id=r.id, registration=r) for r in registrations]
        mark = serving.driver.change_hub.mark()
        handles = []
        for registration, result in zip(registrations, await serving.registry.execute_all(commands), strict=True):
            if isinstance(result, PerdureError):
                raise result
            new = isinstance(result, Receipt) and result.answer == "applied"
            handles.append(Handle[OutputT](serving, registration.id, process.output_type, mark if new else None))
        return handles

    async def _register(self, serving: Serving, registration: Registration) -> int | None:
        """Register and, where a permit is free, claim in the same transaction: the process starts here at once.

        Answers the hub's mark at which it was live; None if it was registered before.
        """
        mark = serving.driver.change_hub.mark()
        command = Register(process_id=registration.id, registration=registration)
        worker = serving.worker
        claim = None
        if worker is not None and not registration.delay_ms and worker.knows(registration.definition):
            claim = worker.claim_for_start()
        if claim is None or worker is None:
            receipt: Receipt = await serving.registry.execute(command)
            return mark if receipt.answer == "applied" else None
        sent_ms = self._clock.now().boot_ms
        ask = partial(serving.registry.execute_together, (command, claim))
        starting = self._spawner.as_future(ask(), "perdure-start")
        asked_again: list[asyncio.Task[Any]] = []

        def begin(done: asyncio.Future[Any]) -> None:
            if done.cancelled() or asked_again or not isinstance(done.exception(), OutcomeUnknown):
                worker.run_claimed(_claimed_in(done), sent_ms)
                return
            asking = worker.ask_until_known(ask(), ask, sent_ms, lost=True)
            asked_again.append(self._spawner.spawn(asking, "perdure-start-again"))
            asked_again[0].add_done_callback(begin)

        starting.add_done_callback(begin)
        try:  # shielded: a caller that gives up can't strand what was claimed with its process
            registered, _ = await asyncio.shield(starting)
        except OutcomeUnknown:
            registered, _ = await asyncio.shield(asked_again[0])
        if isinstance(registered, PerdureError):
            raise registered
        return mark if isinstance(registered, Receipt) and registered.answer == "applied" else None

    def _input(self, process: Process[Any, Any], value: Any) -> msgspec.Raw:
        if self._processes.get(process.definition) is not process:
            raise UnknownDefinition(str(process.definition), sorted(map(str, self._processes)))
        if process.input_type is None:
            if value is not None:
                raise InvalidOption("value", value, f"none: {process.name} takes no input")
            return NULL
        return msgspec.Raw(process.input_type.encode(value))

    def _registration(
        self,
        process: Process[Any, Any],
        id: str,
        input: msgspec.Raw,
        deadline_ms: int | None,
        delay_ms: int,
        queue: str | None,
        priority: int,
        label: str | None,
    ) -> Registration:
        return Registration(
            id=check_process_id(id),
            definition=process.definition,
            recovery=process.recovery,
            input=input,
            retry=process.retry,
            max_deaths=process.max_deaths,
            deadline_ms=process.timeout_ms if deadline_ms is None else deadline_ms,
            delay_ms=delay_ms,
            queue=process.queue if queue is None else queue,
            priority=priority,
            identity=None if label is None else Identity(process.name, label),
            signals=process.signal_schemas,
        )

    # --- commands ---------------------------------------------------------------------------------------------

    async def command(
        self,
        argv: Sequence[str],
        *,
        id: str | None = None,
        label: str | None = None,
        **options: Unpack[CommandOptions],
    ) -> Handle[CommandResult]:
        """Start a program of the operating system as a process: owner_bound, so it is never run twice.

        `argv` is the program and its arguments, byte for byte; no shell sees them. Its lines are events `output` of the
        process. `options` are those of CommandOptions: `env`, `cwd`, `grace`, `deadline`, `queue`, and bounds of the
        output. See docs/commands.md.

        Raises InvalidPayload for what is no argument or environment (a NUL, say), InvalidOption for options.
        """
        serving = self._open
        id = self._ids.process_id() if id is None else id
        registration = command_registration(id, argv, label=label, **options)
        return Handle(serving, registration.id, RESULT, await self._register(serving, registration))

    async def shell(
        self, text: str, *, id: str | None = None, label: str | None = None, **options: Unpack[CommandOptions]
    ) -> Handle[CommandResult]:
        """Start `/bin/sh -c text`; the options are those of `command`. Whatever is put into the text is run."""
        return await self.command(["/bin/sh", "-c", text], id=id, label=label, **options)

    # --- processes that others run ----------------------------------------------------------------------------

    async def register_external(self, name: str, value: Any = None, *, id: str | None = None) -> Handle[Any]:
        """Register work that somebody else runs: Perdure never executes it, its owner calls `complete`."""
        serving = self._open
        registration = Registration(
            id=check_process_id(self._ids.process_id() if id is None else id),
            definition=Definition("external", name),
            recovery="externally_owned",
            input=msgspec.Raw(canonical.encode(msgspec.to_builtins(value, str_keys=True, order="deterministic"))),
        )
        await serving.registry.execute(Register(process_id=registration.id, registration=registration))
        return Handle(serving, registration.id, None)

    async def complete(
        self, id: str, value: Any = None, *, owner: str, outcome: Outcome | None = None
    ) -> ProcessRecord:
        """End an externally_owned process as its owner: with a value, or with another outcome.

        The same outcome again changes nothing. Raises NotPermitted for any other kind of process. The record that is
        returned says what stands.
        """
        if outcome is None:
            text = canonical.encode(msgspec.to_builtins(value, str_keys=True, order="deterministic"))
            outcome = Completed(msgspec.Raw(text))
        command = Complete(process_id=check_process_id(id), outcome=outcome, authority=ExternalOwner(owner))
        receipt: Receipt = await self._open.registry.execute(command)
        return receipt.record

    async def record_departure(self, id: str, reason: str = "") -> ProcessRecord:
        """The caller of an externally_owned process is gone: waits on it are refused until somebody completes it."""
        command = RecordCallerDeparture(process_id=check_process_id(id), reason=reason)
        receipt: Receipt = await self._open.registry.execute(command)
        return receipt.record

    # --- looking ----------------------------------------------------------------------------------------------

    @overload
    def get_handle(self, id: str) -> Handle[Any]: ...
    @overload
    def get_handle(self, id: str, process: Process[Any, OutputT]) -> Handle[OutputT]: ...
    def get_handle(self, id: str, process: Process[Any, Any] | None = None) -> Handle[Any]:
        """A handle on a process by id; with its definition the result is typed. Whether it exists shows on use."""
        return Handle(self._open, check_process_id(id), process.output_type if process else None)

    async def list(self, filter: Filter = Filter(), page: Page = Page()) -> RecordPage:  # noqa: B008 - frozen values
        """Matching records in order of id."""
        return await self._open.registry.list(filter, page)

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        """Drive by hand; an open host drives itself."""
        return await self._open.driver.claim_and_run_pending(reason)


def _claimed_in(done: asyncio.Future[list[Any]]) -> ClaimReceipt | None:
    """What a start-here has claimed; None if it failed or was refused."""
    if done.cancelled() or done.exception() is not None:
        return None
    _, claimed = done.result()
    return claimed if isinstance(claimed, ClaimReceipt) else None


class ProcessDecorator:
    """What `@host.process(...)` applies; the overloads keep the function's types."""

    def __init__(self, host: Host, **options: Any) -> None:
        self._host, self._options = host, options

    @overload
    def __call__(
        self, function: Callable[[ProcessContext], Coroutine[Any, Any, OutputT]]
    ) -> Process[None, OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[[ProcessContext, InputT], Coroutine[Any, Any, OutputT]]
    ) -> Process[InputT, OutputT]: ...
    @overload
    def __call__(self, function: Callable[[SyncContext], OutputT]) -> Process[None, OutputT]: ...
    @overload
    def __call__(self, function: Callable[[SyncContext, InputT], OutputT]) -> Process[InputT, OutputT]: ...
    def __call__(self, function: Callable[..., Any]) -> Process[Any, Any]:
        process = define(function, **self._options)
        self._host.add(process)
        return process


def _nothing_watched() -> None:
    """Before a host is opened."""


class _NoWorker:
    """The run handle of a host that doesn't work."""

    async def claim_and_run_pending(self, reason: str) -> AdmissionReport:
        return AdmissionReport("scanned", reason)


def _program_name() -> str:
    import os
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"
