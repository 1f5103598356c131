"""Packet sets and official files to published partitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stixflow import jobs
from stixflow.archive import Catalog, PacketSet, Partition, Quarantined, draft_partition
from stixflow.archive.marks import FILE_HAS_MORE
from stixflow.errors import StixflowError
from stixflow.provenance import code_version, input_digest
from stixflow.stages.months import join_months
from stixflow.stages.official import choose, count_built, file_has_more, is_official, names_of, shrinks_for
from stixflow.stages.run import Run, gathered
from stixflow.time import ANCHOR_CLOCK

NOTHING_INSIDE = "cubes without a bin inside"

_Ended = tuple[jobs.BuildJob, jobs.Built]
_Shown = Mapping[tuple[str, str], Partition]


def build_cubes(run: Run) -> None:
    """Build, verify and publish every partition that is missing, or was made of other inputs.

    A store that `verify` finds damaged is healed by removing it: it is built again from the packets that are kept.
    """
    stale = stale_partitions(run)
    todo = [job for job, _ in stale]
    sets = {(job.product, job.key): items for job, items in stale}
    everything = _by_partition(run)
    for some in gathered(run.fan_out("cubes", jobs.build, todo, _label)):
        with run.archive.catalog.together():
            before = run.before((job.product, job.key) for job, _ in some)
            for job, built in _publish(run, _publishable(run, some, before), before, sets):
                key = job.product, job.key
                count_built(run, everything[key], sets[key], built.official)
    join_months(run)


def _label(job: jobs.BuildJob) -> str:
    return f"{job.product} {job.key}"


def _publishable(run: Run, ended: Iterable[tuple[jobs.BuildJob, jobs.Built | None]], before: _Shown) -> list[_Ended]:
    """Return what is to be published; what is not is noted, so that it is not built again of the same."""
    chosen: list[_Ended] = []
    left: dict[str, dict[str, str]] = {}
    for job, built in ended:
        if built is None:
            stage, reason = NOTHING_INSIDE, f"its {'files' if job.official else 'packets'} hold no bin of it"
        elif reason := file_has_more(before.get((job.product, job.key)), job, built):
            stage = FILE_HAS_MORE
        else:
            chosen.append((job, built))
            continue
        left.setdefault(stage, {})[_label(job)] = packets_digest(job.inputs)
        run.skip("cubes", _label(job), reason)
    for stage, items in left.items():
        run.archive.catalog.mark_done(stage, items, run_id=run.run_id)
    return chosen


def _by_partition(run: Run) -> dict[tuple[str, str], list[PacketSet]]:
    groups: dict[tuple[str, str], list[PacketSet]] = {}
    for item in run.archive.catalog.packet_sets():
        if item.product != jobs.UNDECODED and concerns(run, item.product, item.key):
            groups.setdefault((item.product, item.key), []).append(item)
    return groups


def stale_partitions(run: Run, *, from_nothing: bool = False) -> list[tuple[jobs.BuildJob, list[PacketSet]]]:
    """Return the partitions that are to be built, each with its packet sets; of a candidate the long ones first.

    Parameters
    ----------
    from_nothing
        As if nothing were there yet.
    """
    catalog = run.archive.catalog
    lost = {item.id for item in run.archive.lost()}
    there = [item for item in catalog.partitions() if item.id not in lost]
    nothing = catalog.done(NOTHING_INSIDE)
    if run.candidate:
        there = [] if from_nothing else [item for item in there if is_made_by(run, item)]
    elif run.redate:
        there, nothing = [item for item in there if _is_dated_by(run, item)], {}
    made = nothing | {f"{p.product} {p.key}": p.input_digest for p in there}
    rolled_back = catalog.rolled_back()
    left = catalog.done(FILE_HAS_MORE)
    stale = []
    for (product, key), items in _by_partition(run).items():
        label, chosen = f"{product} {key}", _chosen(product, items)
        if left.get(label) == packets_digest(_inputs(chosen)):
            chosen = _chosen(product, [item for item in items if is_official(item)])
        inputs = _inputs(chosen)
        digest = packets_digest(inputs)
        if made.get(label) == digest:
            continue
        if (product, key, digest) in rolled_back:
            run.skip("cubes", f"{product} {key}", "rolled back: left as it is until more of its packets come")
        else:
            stale.append((_job(run, product, key, chosen), chosen))
    if run.candidate:
        stale.sort(key=lambda found: (-sum(item.n_packets for item in found[1]), found[0].product, found[0].key))
    return stale


def _job(run: Run, product: str, key: str, chosen: Sequence[PacketSet]) -> jobs.BuildJob:
    layout = run.tuning.layouts.get(product)
    return jobs.BuildJob(
        product,
        key,
        _inputs(chosen),
        run.archive.root,
        run.store_id,
        run.clock,
        official=names_of(chosen),
        layout=layout,
        tuned_by=run.tuning.name if layout else "",
        n_packets=sum(item.n_packets for item in chosen if not is_official(item)),
    )


def concerns(run: Run, product: str, key: str) -> bool:
    """Tell whether a run builds a partition at all."""
    return run.candidate is None or run.candidate.covers(product, key)


def is_made_by(run: Run, partition: Partition) -> bool:
    """Tell whether a partition is what this run would make of the same packets."""
    return partition.code_version == code_version() and _is_dated_by(run, partition)


def _is_dated_by(run: Run, partition: Partition) -> bool:
    """Tell whether a partition was made by the clock of the run; ephemeris brings its own times.

    Without a kernel, official files keep theirs, which the mission made with kernels.
    """
    clock = partition.attrs.get("clock", ANCHOR_CLOCK.name)
    known = (run.clock.name, jobs.HEADER_CLOCK) if run.clock == ANCHOR_CLOCK else (run.clock.name,)
    return partition.product == "ephemeris" or clock in known


def _chosen(product: str, items: list[PacketSet]) -> list[PacketSet]:
    """Choose what a partition is made of; of several ephemeris files of one day the last by name, V02 after V01."""
    if product == "ephemeris":
        return [max(items, key=lambda item: (str(item.attrs.get("name", "")), item.digest))]
    return choose(product, items)


def _inputs(items: Sequence[PacketSet]) -> tuple[tuple[str, str], ...]:
    return tuple((item.path, item.digest) for item in items)


def packets_digest(inputs: tuple[tuple[str, str], ...]) -> str:
    """Return the digest of what a partition is made of."""
    return input_digest(digest for _, digest in inputs)


def _publish(
    run: Run, ended: Sequence[_Ended], before: _Shown, sets: Mapping[tuple[str, str], list[PacketSet]]
) -> Iterator[_Ended]:
    """Publish what was built, keep the books of it, and yield what readers see now."""
    drafts, reasons = [], []
    for job, built in ended:
        _quarantine(run, job, built)
        drafts.append(_draft(run, job, built, sets[job.product, job.key]))
        reasons.append(shrinks_for(before.get((job.product, job.key)), job))
    for (job, built), draft, refused in zip(ended, drafts, _show(run.archive.catalog, drafts, reasons), strict=True):
        if refused:
            run.fail("cubes", _label(job), refused)
            continue
        run.counts[job.product] += 1
        if not built.complete:
            run.counts["incomplete"] += 1
            run.skip("cubes", _label(job), f"published incomplete: {built.missing}")
        if not run.candidate:
            # Packets that an earlier file had brought were counted as used when their own file was framed.
            old = before.get((job.product, job.key))
            late, rejected = (_number(draft, name) - _number(old, name) for name in ("duplicates", "conflicts"))
            run.balance.update(used=-late - rejected, duplicates=late, rejected=rejected)
        yield job, built


def _draft(run: Run, job: jobs.BuildJob, built: jobs.Built, items: Sequence[PacketSet]) -> Partition:
    duplicates = sum(_home(item.attrs) for item in items) - built.n_home - built.n_conflicts
    return draft_partition(
        built.store,
        path=built.path,
        run_id=run.run_id,
        product=job.product,
        key=job.key,
        day=built.day,
        input_digest=packets_digest(job.inputs),
        code_version=code_version(),
        complete=built.complete,
        missing=built.missing,
        attrs={**built.store.attrs, **built.summary, "duplicates": duplicates, "conflicts": built.n_conflicts},
    )


def _show(catalog: Catalog, drafts: Sequence[Partition], reasons: Sequence[str]) -> list[str]:
    """Publish partitions at once, or each by itself where one of them is refused; return why each was, or nothing."""
    try:
        ids = catalog.stage_all(drafts)
        catalog.publish(*ids, shrink_reason=dict(zip(ids, reasons, strict=True)))
    except StixflowError as error:
        if len(drafts) == 1:
            return [str(error)]
        return [_show(catalog, [draft], [reason])[0] for draft, reason in zip(drafts, reasons, strict=True)]
    return [""] * len(drafts)


def _quarantine(run: Run, job: jobs.BuildJob, built: jobs.Built) -> None:
    """Record the packets of different files that contradict each other, once."""
    if built.conflicts:
        known = {row["path"] for row in run.archive.catalog.quarantined()}
        fresh = [one for one in built.conflicts if one.path not in known]
        entries = [Quarantined(_label(job), one.reason, one.offset, one.n_bytes, one.path) for one in fresh]
        run.archive.catalog.quarantine(entries, run_id=run.run_id)


def _home(attrs: Mapping[str, Any]) -> int:
    return int(attrs.get("n_home", 0))


def _number(partition: Partition | None, name: str) -> int:
    attrs: Mapping[str, Any] = partition.attrs if partition else {}
    return int(attrs.get(name, 0))
