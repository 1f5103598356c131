"""Published days to joined months."""

from __future__ import annotations

from stixflow.archive.months import keep_month, stale_months
from stixflow.jobs.join import JoinJob, join
from stixflow.stages.run import Run


def join_months(run: Run) -> None:
    """Join the days of every month of which one has changed, so that a year opens at once."""
    root = run.archive.root
    months = {month.label: month for month in stale_months(run.archive.catalog, root)}
    todo = [
        JoinJob(label, tuple((day.path, day.digest) for day in month.days), month.path, root)
        for label, month in months.items()
    ]
    for job, reason in run.fan_out("months", join, todo, lambda job: job.label):
        keep_month(run.archive.catalog, months[job.label], joined=not reason, run_id=run.run_id)
        if reason:
            run.skip("months", job.label, f"its days are read one by one: {reason}")
        else:
            run.counts["months_joined"] += 1
