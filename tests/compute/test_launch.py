"""Every kind of cluster, as real as it can be here: the job script and the pods of it run as plain processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_calls import blas_threads, square
from running_dask import plain_environment, running_scheduler

from stixflow.compute import Cost, Pool, Serial, load_profile, map_batches, open_cluster, open_engine
from stixflow.compute.kubernetes import kubernetes_spec
from stixflow.compute.processes import scheduler_environment, worker_environment
from stixflow.compute.profiles import KubernetesProfile, SlurmProfile
from stixflow.compute.slurm import slurm_cluster
from stixflow.errors import UsageError

_FAKE_SLURM = Path(__file__).parent / "fake_slurm"
_TESTS = Path(__file__).resolve().parents[1]
_SLURM = """
kind = "slurm"
workers = 2
workers_per_job = 2
memory = "800MB"
walltime = "01:00:00"
queue = "normal"
account = "stix"
wait_seconds = 60.0
prologue = ["export FROM_PROLOGUE=1"]
directives = ["--constraint=avx2"]
"""


def assert_works(pool: Pool, items: int = 60) -> None:
    outcomes = list(map_batches(square, range(items), pool=pool, batch_size=4))
    assert {outcome.index: outcome.value for outcome in outcomes} == {i: i * i for i in range(items)}


def assert_one_blas_thread(pool: Pool) -> None:
    """After a multiplication that would use every core, inside every worker."""
    (outcome,) = map_batches(blas_threads, [600], pool=pool)
    assert outcome.value, outcome.error
    assert set(outcome.value.values()) == {1}


@pytest.fixture(autouse=True)
def _same_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody who edits a file meanwhile fail these tests: what they are about is who computes, not what."""
    if "other_code" not in request.node.name:
        monkeypatch.setattr("stixflow.compute.arrival._check_code", lambda _client: None)


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a SLURM of this machine first in the path; yield the folder of its jobs."""
    state = tmp_path / "jobs"
    state.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(_FAKE_SLURM), os.environ["PATH"]]))
    monkeypatch.setenv("FAKE_SLURM_STATE", str(state))
    monkeypatch.setenv("PYTHONPATH", str(_TESTS))
    yield state
    for pid in state.glob("*.pid"):
        subprocess.run(["scancel", pid.stem], check=False)


@pytest.fixture
def slurm_profile(tmp_path: Path) -> SlurmProfile:
    path = tmp_path / "slurm.toml"
    path.write_text(_SLURM)
    profile = load_profile(path)
    assert isinstance(profile, SlurmProfile)
    return profile


def queued() -> list[str]:
    done = subprocess.run(["squeue"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in done.stdout.splitlines()[1:]]


def test_the_job_script_of_slurm(slurm_profile: SlurmProfile) -> None:
    with slurm_cluster(slurm_profile) as cluster:
        *head, command, _ = cluster.job_script().split("\n")
    assert head == [
        "#!/usr/bin/env bash",
        "",
        "#SBATCH -J stixflow-worker",
        "#SBATCH -p normal",
        "#SBATCH -A stix",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --mem=2G",
        "#SBATCH -t 01:00:00",
        "#SBATCH --constraint=avx2",
        *(f"export {name}={value}" for name, value in worker_environment().items()),
        "export FROM_PROLOGUE=1",
    ]
    assert re.fullmatch(
        re.escape(f"{sys.executable} -m distributed.cli.dask_worker ")
        + r"tcp://\S+:\d+ --name dummy-name --nthreads 1 "
        r"--memory-limit 762.94MiB --nworkers 2 --nanny --death-timeout 120 "
        r"--lifetime 3300s --lifetime-stagger 240s --no-dashboard",
        command,
    )


@pytest.mark.cluster
def test_jobs_of_slurm_compute_are_replaced_and_end(
    slurm: Path, slurm_profile: SlurmProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stixflow.compute.slurm._KEEP_SECONDS", 0.5)
    with open_cluster(cluster=slurm_profile) as pool:
        wait_for(lambda: queued() == ["1"])
        assert_works(pool)
        assert_one_blas_thread(pool)
        assert pool.memory_limit == pytest.approx(800e6, rel=1e-5)
        time.sleep(1.5)  # the keeper sees that the job had workers
        assert queued() == ["1"]
        subprocess.run(["scancel", "1"], check=True)  # as when its walltime is over
        wait_for(lambda: queued() == ["2"])
        assert_works(pool)
    assert queued() == []
    assert sorted(path.name for path in slurm.glob("*.sh")) == ["1.sh", "2.sh"]


@pytest.mark.cluster
def test_jobs_that_never_start_are_told(slurm: Path, slurm_profile: SlurmProfile) -> None:
    hurried = slurm_profile.model_copy(update={"wait_seconds": 0.2, "python": "/bin/true"})
    with (
        pytest.raises(ConnectionError, match=r"no worker came within 0\.2 s.*squeue --me"),
        open_cluster(cluster=hurried),
    ):
        pytest.fail("there are no workers")
    assert queued() == []
    assert slurm.is_dir()


@pytest.fixture
def kubernetes() -> KubernetesProfile:
    profile = load_profile("kubernetes")
    assert isinstance(profile, KubernetesProfile)
    return profile.model_copy(
        update={
            "namespace": "stix",
            "workers": 2,
            "memory": "800MB",
            "environment": {"AWS_ENDPOINT_URL": "http://s3:9000"},
            "volumes": {"stixflow-archive": "/srv/stixflow"},
            "node_selector": {"disk": "fast"},
        }
    )


def test_the_resource_of_kubernetes_is_what_the_operator_takes(kubernetes: KubernetesProfile) -> None:
    from kubernetes_schema import problems

    spec = kubernetes_spec(kubernetes)
    assert problems(spec) == []
    worker, scheduler = (spec["spec"][part]["spec"]["containers"][0] for part in ("worker", "scheduler"))
    assert spec["spec"]["worker"]["replicas"] == 2
    for container in (worker, scheduler):
        ports = {port["name"] for port in container["ports"]}
        assert container["readinessProbe"]["httpGet"]["port"] in ports
        assert container["livenessProbe"]["httpGet"]["port"] in ports
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert {entry["name"]: entry["value"] for entry in container["env"]}["AWS_ENDPOINT_URL"] == "http://s3:9000"
    limit = worker["args"][worker["args"].index("--memory-limit") + 1]
    assert limit == worker["resources"]["limits"]["memory"] == "800000000"
    service = spec["spec"]["scheduler"]["service"]
    assert {port["targetPort"] for port in service["ports"]} == {port["name"] for port in scheduler["ports"]}
    assert service["selector"] == {"dask.org/cluster-name": "stixflow", "dask.org/component": "scheduler"}


def test_a_resource_that_the_operator_would_not_take_is_seen(kubernetes: KubernetesProfile) -> None:
    from kubernetes_schema import problems

    spec = kubernetes_spec(kubernetes)
    spec["spec"]["worker"]["spec"]["containers"][0]["imagePolicy"] = "Never"
    del spec["spec"]["scheduler"]["service"]
    assert len(problems(spec)) == 2


class _Pods:
    """Stands in for the operator: makes the containers of a resource processes of this machine."""

    def __init__(self, *, custom_cluster_spec: dict[str, Any], namespace: str | None, quiet: bool) -> None:
        assert (namespace, quiet) == ("stix", True)
        self.spec, self.processes = custom_cluster_spec["spec"], []

    def __enter__(self) -> str:
        address = self.start("scheduler", {}, "--port", "0", "--host", "127.0.0.1")
        for number in range(self.spec["worker"]["replicas"]):
            names = {"DASK_WORKER_NAME": f"pod-{number}", "DASK_SCHEDULER_ADDRESS": address}
            self.start("worker", names, "--host", "127.0.0.1")
        return address

    def start(self, part: str, added: dict[str, str], *more: str) -> str:
        (container,) = self.spec[part]["spec"]["containers"]
        names = {entry["name"]: entry["value"] for entry in container["env"]} | added
        program, *arguments = [
            re.sub(r"\$\((\w+)\)", lambda match: names[match[1]], argument).replace("8788", "127.0.0.1:0")
            for argument in container["args"]
        ]
        command = [str(Path(sys.executable).parent / program), *arguments, *more]
        process = subprocess.Popen(
            [*command, "--dashboard-address", "127.0.0.1:0"],
            env={**plain_environment(), **names},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(r"(?:at|to): +(tcp://\S+:\d+)", line)))
        return found[1]

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.communicate(timeout=30)


@pytest.mark.cluster
def test_the_pods_of_kubernetes_compute(kubernetes: KubernetesProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask_kubernetes.operator

    monkeypatch.setattr(dask_kubernetes.operator, "KubeCluster", _Pods)
    with open_cluster(cluster=kubernetes) as pool:
        wait_for(lambda: len(pool._client.nthreads()) == 2)  # type: ignore[attr-defined]
        assert_works(pool)
        assert_one_blas_thread(pool)
        assert pool.memory_limit == 800_000_000


@pytest.mark.cluster
class TestAddress:
    def test_nobody_there(self) -> None:
        with (
            pytest.raises(ConnectionError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9.*Do: start it"),
            open_cluster(
                cluster=load_profile("address", address="tcp://127.0.0.1:9").model_copy(update={"wait_seconds": 0.3})
            ),
        ):
            pytest.fail("nobody is there")

    def test_a_scheduler_without_workers(self) -> None:
        with running_scheduler(0) as (address, _):
            profile = load_profile("address", address=address).model_copy(update={"wait_seconds": 0.3})
            with pytest.raises(ConnectionError, match=r"no worker came.*dask worker"), open_cluster(cluster=profile):
                pytest.fail("there are no workers")

    def test_workers_of_other_code_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with running_scheduler(1) as (address, _):
            monkeypatch.setattr("stixflow.provenance.code_version", lambda: "0.0+other")
            with (
                pytest.raises(ConnectionError, match=r"1 workers run other code.*start them again"),
                open_cluster(scheduler=address),
            ):
                pytest.fail("they cannot work together")

    def test_one_thread_then_all_workers_lost_then_scheduler_lost(self) -> None:
        with running_scheduler(1, **scheduler_environment(1.0)) as (address, processes):
            with open_cluster(scheduler=address) as pool:
                assert_works(pool)
                assert_one_blas_thread(pool)
                stream = map_batches(time.sleep, [0.01] * 1000, pool=pool, batch_size=1)
                next(stream)
                processes[1].send_signal(signal.SIGTERM)
                with pytest.raises(
                    ConnectionError, match=r"without any running workers.*bring the workers back, then run the same"
                ):
                    list(stream)
            started = time.monotonic()
            with (
                pytest.raises(ConnectionError, match="no worker came"),
                open_cluster(cluster=load_profile("address", address=address).model_copy(update={"wait_seconds": 0.5})),
            ):
                pytest.fail("the worker is gone")
            assert time.monotonic() - started < 30


def test_engines_as_settings_name_them() -> None:
    with open_engine(serial=True, cluster="slurm") as pool:
        assert isinstance(pool, Serial)
    with pytest.raises(UsageError, match="memory"), open_engine(memory_limit="much"):
        pytest.fail("not opened")


@pytest.mark.cluster
def test_what_one_machine_shows_of_a_run(tmp_path: Path) -> None:
    report, cost = tmp_path / "report.html", Cost()
    with pytest.raises(UsageError, match="no folder"), open_cluster(1, report=tmp_path / "none" / "report.html"):
        pytest.fail("not opened")
    with open_cluster(1, memory_limit="900MB", report=report) as pool:
        assert pool.memory_limit == 900_000_000
        with cost.coordinated(pool.slots):
            list(map_batches(square, range(40), pool=pool, batch_size=10, tag="squares", cost=cost))
        assert_one_blas_thread(pool)
        spans = pool._client.run_on_scheduler(_span_names)  # type: ignore[attr-defined]
    assert "squares" in spans
    assert "squares" in report.read_text()
    told = cost.report()
    assert (told["items"], told["failed"], told["batches"], told["workers"]) == (40, 0, 4, 1)
    assert told["peak_worker_bytes"] > 1 << 20
    assert 0 < told["overhead_share"] <= 1


def _span_names(dask_scheduler: Any) -> list[str]:
    return [name for span in dask_scheduler.extensions["spans"].spans.values() for name in span.name]
