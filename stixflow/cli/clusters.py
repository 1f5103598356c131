"""The command that shows and tries cluster profiles."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from stixflow.cli.options import command, whole
from stixflow.cli.output import emit


def _cluster(options: argparse.Namespace) -> int:
    from stixflow.compute import load_profile, profile_names, show_profile, try_profile
    from stixflow.settings import load_settings

    settings = load_settings(cluster=options.profile, workers=options.workers, scheduler=options.scheduler)
    name = "address" if settings.scheduler and settings.cluster == "local" else settings.cluster
    profile = load_profile(name, workers=settings.workers or None, address=settings.scheduler)
    payload: dict[str, Any] = {
        "name": name,
        "profiles": profile_names(),
        "profile": profile.model_dump(),
        "starts": show_profile(profile),
    }
    if options.try_it:
        payload["found"] = try_profile(profile)
    emit(options, payload, _text)
    return 0


def _text(payload: Mapping[str, Any]) -> str:
    keys = [f"{key:16s} {value}" for key, value in payload["profile"].items() if value not in (None, (), {})]
    lines = [f"profile {payload['name']}", *keys, "", payload["starts"]]
    if "found" in payload:
        lines += ["", f"the first worker was there after {payload['found']['seconds']} s"]
        lines += [_worker(worker) for worker in payload["found"]["workers"]]
    return "\n".join(lines)


def _worker(worker: Mapping[str, Any]) -> str:
    memory = f"{worker['memory_bytes'] / 1e9:.1f} GB" if worker["memory_bytes"] else "no limit"
    return (
        f"  {worker['name']} on {worker['host']}: {worker['threads']} thread, {worker['blas_threads']} of BLAS, "
        f"{memory}, Python {worker['python']}"
    )


def add_cluster(commands: Any) -> None:
    """Add `cluster`."""
    parser = command(
        commands,
        "cluster",
        _cluster,
        "show what a cluster profile would start, or try it",
        "A profile says where workers run: `local` (processes of this machine), `address` (a scheduler that runs\n"
        "already), `slurm`, `kubernetes`, or a TOML file of yours: copy one of infra/clusters, change it, name it by\n"
        "its path. Commands that compute take it as --cluster, STIXFLOW_CLUSTER, or `cluster` of stixflow.toml.\n\n"
        "Examples:\n  stixflow cluster slurm              the job script, and how many jobs\n"
        "  stixflow cluster ours.toml --try    start it, ask each worker what it is, end it",
    )
    parser.add_argument(
        "profile", metavar="PROFILE", nargs="?", help="name or path; default the setting cluster, or local"
    )
    parser.add_argument("--try", dest="try_it", action="store_true", help="start it, ask its workers, end it")
    parser.add_argument("--workers", type=whole, help="worker processes, instead of those of the profile")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask scheduler")
