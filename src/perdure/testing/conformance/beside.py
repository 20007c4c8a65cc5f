"""Section G, what code says beside its log: a progress value under the fence of its run, and live output."""

from __future__ import annotations

from perdure.contract.verbs import report_progress
from perdure.model.live import Chunk
from perdure.model.outcomes import Completed
from perdure.model.progress import Progress
from perdure.testing.conformance.case import case, expect, expect_equal
from perdure.testing.conformance.kit import Kit, raw
from perdure.testing.conformance.world import holds
from perdure.transitions.commands import Claimed, ProgressReceipt, ReportedProgress, ReportProgress


def said(claimed: Claimed, done: float, note: str = "") -> ReportedProgress:
    """What the run under this lease reports."""
    record, lease = claimed.record, claimed.lease
    return ReportedProgress(lease.key, Progress(done, 10, note, record.attempt, lease.fence, lease.claimed_at_ms))


async def stands(kit: Kit, *ids: str) -> dict[str, float]:
    """What stands of these processes, by id."""
    return {id: progress.done for id, progress in (await kit.registry.progress_of(ids)).items()}


# --- progress --------------------------------------------------------------------------------------------------


@case("G.11a", "the last progress that the holder reports stands as it was given, and is no change of the process")
async def last_progress_stands(kit: Kit) -> None:
    claimed = await kit.start("p")
    before, log, lease = await kit.get("p"), await kit.log("p"), await kit.lease("p")
    expect_equal(await stands(kit, "p"), {}, "what stands before anything was reported")
    for done in (1, 2.5, 2):
        receipt = await report_progress(kit.registry, (said(claimed, done, f"{done} \u00e9"),))
        expect_equal(receipt.accepted, (True,), "whether it was accepted")
    found = await kit.registry.progress_of(("p",))
    expect_equal(found, {"p": said(claimed, 2, "2 \u00e9").progress}, "what stands")
    expect(type(found["p"].done) is int, "a whole number stays one")
    expect_equal((await kit.get("p"), await kit.log("p"), await kit.lease("p")), (before, log, lease), "the process")


@case("G.11b", "what a stale owner reports is dropped, and harms no other report of the same command")
async def stale_progress_is_dropped(kit: Kit) -> None:
    stale = await kit.start("p")
    await report_progress(kit.registry, (said(stale, 1),))
    kit.let_lapse(stale)
    receipt = await report_progress(kit.registry, (said(stale, 2),))
    expect_equal(receipt.accepted, (False,), "whether it was accepted after the lease had lapsed")
    fresh, other = await kit.claim_one("b"), await kit.start("q", "c")
    receipt = await report_progress(kit.registry, (said(stale, 3), said(other, 4)))
    expect_equal(receipt.accepted, (False, True), "what was accepted once there was a new owner")
    expect_equal(await stands(kit, "p", "q"), {"p": 1, "q": 4}, "what stands")
    await report_progress(kit.registry, (said(fresh, 0),))
    expect_equal(await stands(kit, "p"), {"p": 0}, "what the new owner reported, though it is less")
    await kit.release(fresh)
    receipt = await report_progress(kit.registry, (said(fresh, 5),))
    expect_equal(receipt.accepted, (False,), "whether it was accepted after the release")


@case("G.11c", "a last report that comes with the end stands with it, and none is accepted afterwards")
async def progress_comes_with_the_end(kit: Kit) -> None:
    claimed = await kit.start("p")
    commands = (ReportProgress(reports=(said(claimed, 9), said(claimed, 10))), kit.complete_command("p", claimed))
    reported, ended = await kit.registry.execute_together(commands)
    expect_equal(reported, ProgressReceipt((True, True)), "the answer to the reports")
    expect_equal(getattr(ended, "answer", ended), "applied", "the answer to the end")
    late = await report_progress(kit.registry, (said(claimed, 11),))
    expect_equal(late.accepted, (False,), "whether a report after the end was accepted")
    expect_equal(await stands(kit, "p"), {"p": 10}, "what stands")
    expect_equal((await kit.get("p")).outcome, Completed(), "the outcome")


@case("G.11d", "the reports of hundreds are one command, and are read at once; who has said nothing is left out")
async def much_progress_at_once(kit: Kit) -> None:
    ids = [f"p-{number:03}" for number in range(300)]
    for id in (*ids, "silent"):
        await kit.register(id)
    claimed = {one.record.id: one for one in (await kit.claim(limit=301)).claimed}
    expect_equal(len(claimed), 301, "the rows claimed")
    receipt = await report_progress(kit.registry, tuple(said(claimed[id], at) for at, id in enumerate(ids)))
    expect_equal(receipt.accepted, (True,) * 300, "what was accepted")
    found = await stands(kit, *ids, "silent", "unknown", "unkn\u00f6wn")
    expect_equal(found, {id: at for at, id in enumerate(ids)}, "what stands")


@case("G.11e", "progress is there when the store is opened again", needs=("reopenable",))
async def progress_is_kept(kit: Kit) -> None:
    claimed = await kit.start("p")
    await report_progress(kit.registry, (said(claimed, 3),))
    await kit.reopen()
    expect_equal(await stands(kit, "p"), {"p": 3}, "what stands")


@case("G.11f", "progress is seen through another registry at once", needs=("multi_process",))
async def progress_is_seen_elsewhere(kit: Kit) -> None:
    claimed, peer = await kit.start("p"), await kit.peer()
    await report_progress(kit.registry, (said(claimed, 3),))
    expect_equal((await peer.progress_of(("p",)))["p"].done, 3, "what stands there")


# --- live output -----------------------------------------------------------------------------------------------


def chunk(number: int, process_id: str = "p", text: str = "") -> Chunk:
    return Chunk(process_id, "tokens", raw(text or f"t{number}"), 1, 1, number, "step")


def nothing() -> tuple[Chunk, ...]:
    return ()


@case("G.12a", "who follows a process in this program is called at once with its chunks, and no others, until it ends")
async def live_output_here(kit: Kit) -> None:
    wire, heard = kit.registry.live_wire, list[Chunk]()
    end = wire.follow("p", heard.append)
    end_other = wire.follow("q", heard.append)
    end_other()
    for sent in (chunk(1), chunk(1, "q"), chunk(2)):
        wire.send(sent, nothing)
    end()
    wire.send(chunk(3), nothing)
    expect_equal(heard, [chunk(1), chunk(2)], "what was heard")


@case(
    "G.12b", "who follows through another registry hears what was said lately, then the rest in order",
    needs=("live_elsewhere",),
)  # fmt: skip
async def live_output_elsewhere(kit: Kit) -> None:
    wire, peer, heard = kit.registry.live_wire, await kit.peer(), list[Chunk]()

    def take(one: Chunk) -> None:
        if one not in heard:  # the very same may come twice: also as what was said lately
            heard.append(one)

    wire.send(chunk(1), nothing)
    end_attending, end = peer.live_wire.attend("p"), peer.live_wire.follow("p", take)
    for number in range(2, 500):
        wire.send(chunk(number), lambda: [chunk(1)])
        wire.send(chunk(number, "q"), nothing)
        if number % 50 == 0:
            await kit.until(holds(lambda: heard[-1:] == [chunk(number)]), "the peer has heard it")  # noqa: B023 - now
    large = chunk(500, text="x" * 60_000)
    wire.send(large, nothing)
    await kit.until(holds(lambda: heard[-1:] == [large]), "the peer has heard a large one")
    expect_equal([one.number for one in heard], list(range(1, 501)), "the numbers that it heard")
    expect_equal({one.process_id for one in heard}, {"p"}, "the processes that it heard of")
    expect_equal(heard[:2], [chunk(1), chunk(2)], "the first that it heard")
    end()
    end_attending()


CASES = (
    last_progress_stands, stale_progress_is_dropped, progress_comes_with_the_end, much_progress_at_once,
    progress_is_kept, progress_is_seen_elsewhere, live_output_here, live_output_elsewhere,
)  # fmt: skip
