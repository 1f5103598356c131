"""The files of the stack cannot rot: what they name exists, what waits for something can, what must be equal is.

That the commands and health checks work is shown by `test_local_stack.py`, which runs those of compose.yaml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_schema import pod_problems

from stixflow.compute.processes import scheduler_environment, worker_environment
from stixflow.settings import PREFIX, Settings, load_settings

_ROOT = Path(__file__).resolve().parents[2]
_INFRA = _ROOT / "infra"
_COMPOSE = (_INFRA / "compose.yaml").read_text()
_DASK = {"DASK_", "OMP_", "OPENBLAS_", "MKL_", "BLOSC_", "MALLOC_"}


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(_COMPOSE)["services"]
    return found


def resources() -> Iterator[dict[str, Any]]:
    """Yield every resource that kustomization.yaml names."""
    folder = _INFRA / "kubernetes"
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.glob("*.yaml")} == {*named, "kustomization.yaml", "secrets.example.yaml"}
    for name in named:
        yield from yaml.safe_load_all((folder / name).read_text())


def containers() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return every container by name, with its pod."""
    found = {}
    for resource in resources():
        if resource["kind"] in ("Deployment", "StatefulSet"):
            pod = resource["spec"]["template"]["spec"]
            for container in (*pod.get("initContainers", []), *pod["containers"]):
                found[container["name"]] = (container, pod)
    return found


def variables_of(container: dict[str, Any]) -> dict[str, str]:
    """Return the plain variables of a container, those of the settings it takes included."""
    settings = next(r for r in resources() if r["metadata"]["name"] == "stixflow-settings")["data"]
    taken = [entry for entry in container.get("envFrom", []) if "configMapRef" in entry]
    plain = {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}
    return (settings if taken else {}) | plain


def test_every_service_is_watched_or_runs_once() -> None:
    for name, service in services().items():
        once = service["restart"] == "no"
        assert once == ("healthcheck" not in service), name
        assert service["restart"] in ("no", "unless-stopped")
        if not once:
            check = service["healthcheck"]
            assert check["test"][0] == "CMD"
            assert {"interval", "timeout", "retries", "start_period"} <= set(check)
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if services()[other]["restart"] == "no" else "service_healthy"
            assert condition == {"condition": wanted}, (name, other)


def test_every_piece_of_the_stack_is_there() -> None:
    assert {"postgres", "s3", "prefect-server", "prefect-worker", "dask-scheduler", "dask-worker"} <= set(services())
    declared = set(yaml.safe_load(_COMPOSE)["volumes"])
    used = [volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])]
    assert {volume for volume in used if not volume.startswith(".")} == declared
    assert all((_INFRA / volume).exists() for volume in used if volume.startswith("."))


def test_variables_and_secrets_come_from_the_environment_file() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", _COMPOSE))
    offered = set(re.findall(r"\$\{(\w+)", _COMPOSE))
    example = dict(
        line.split("=", 1) for line in (_INFRA / "example.env").read_text().splitlines() if re.match(r"\w+=", line)
    )
    assert set(example) == offered
    assert needed == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert all(example[name].startswith("change-me") for name in needed)
    for name in offered - needed - {"STIXFLOW_SCHEDULES"}:
        assert re.search(rf"\${{{name}:-{re.escape(example[name])}}}", _COMPOSE), f"the defaults of {name} differ"


def test_nothing_is_published_to_other_machines_and_images_have_plain_names() -> None:
    for name, service in services().items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    images = {service["image"] for service in services().values()} | {c["image"] for c, _ in containers().values()}
    for image in images:
        repository, _, tag = image.partition(":")
        assert tag, image
        assert tag != "latest" or repository == "stixflow", f"{image} changes without notice"
        assert "." not in repository.split("/")[0], f"{image} names a registry"


def test_settings_of_the_stack_are_settings() -> None:
    for container in (services()["prefect-worker"], services()["dask-worker"]):
        given = {name for name in container["environment"] if name.startswith(PREFIX)}
        assert {name.removeprefix(PREFIX).lower() for name in given} <= set(Settings.model_fields)
    environment = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in services()["prefect-worker"]["environment"].items()
    }
    settings = load_settings(environ=environment)
    assert (settings.cluster, settings.scheduler) == ("address", "tcp://dask-scheduler:8786")
    assert settings.catalog
    assert "change-me" not in settings.catalog


def _of_dask(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(tuple(_DASK))}


def test_workers_and_scheduler_run_as_where_they_are_started_by_a_profile() -> None:
    wanted = {"dask-worker": worker_environment(), "dask-scheduler": scheduler_environment(600.0)}
    for name, environment in wanted.items():
        assert _of_dask(services()[name]["environment"]) == environment
        assert _of_dask(variables_of(containers()[name][0])) == environment
    script = (_INFRA / "slurm/one-allocation.sbatch").read_text()
    exported = dict(re.findall(r"(\w+)=(\S+)", "\n".join(re.findall(r"^export (.*)$", script, re.MULTILINE))))
    assert exported == wanted["dask-worker"] | wanted["dask-scheduler"]


def test_kubernetes_runs_the_commands_of_compose() -> None:
    commands = {name: [str(part) for part in service["command"]] for name, service in services().items()}
    commands["dask-worker"] = [part.replace("${WORKER_MEMORY:-3GB}", "3GB") for part in commands["dask-worker"]]
    assert {name: container["args"] for name, (container, _) in containers().items()} == commands
    for name in ("prefect-worker", "deployments", "bucket", "dask-worker"):
        composed = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            for key, value in services()[name]["environment"].items()
            if ":?" not in value
        }
        here = variables_of(containers()[name][0])
        assert composed.items() <= here.items(), name
    (databases,) = (r["data"] for r in resources() if r["metadata"]["name"] == "postgres-databases")
    assert databases["databases.sql"] == (_INFRA / "postgres/databases.sql").read_text()


def test_pods_are_what_kubernetes_takes() -> None:
    for name, (container, pod) in containers().items():
        assert pod_problems(pod) == [], name
        assert container["resources"]["requests"]["memory"], name
        assert container["resources"]["limits"]["memory"], name
        if container["image"].startswith("stixflow"):
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["enableServiceLinks"] is False
        if container in pod["containers"]:
            assert {"readinessProbe", "startupProbe"} & set(container), name
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            if "httpGet" in container.get(probe, {}):
                assert container[probe]["httpGet"]["port"] in ports, name
                health = "".join(services()[name]["healthcheck"]["test"])
                path = container[probe]["httpGet"]["path"]
                assert (
                    name == "s3"
                    or f"localhost:{next(iter(ports.values())) if len(ports) == 1 else 8787}{path}" in health
                )


def test_services_of_kubernetes_lead_to_pods_and_are_named_as_in_compose() -> None:
    pods = {}
    for resource in resources():
        if resource["kind"] in ("Deployment", "StatefulSet"):
            spec = resource["spec"]
            labels = spec["template"]["metadata"]["labels"]
            assert spec["selector"]["matchLabels"].items() <= labels.items()
            named = {p["name"] for c in spec["template"]["spec"]["containers"] for p in c.get("ports", [])}
            pods[resource["metadata"]["name"]] = (labels, named)
    found = [resource for resource in resources() if resource["kind"] == "Service"]
    for service in found:
        labels, ports = pods[service["metadata"]["name"]]
        assert service["spec"]["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    hosts = set(re.findall(r"(?:@|//)([a-z][a-z0-9-]*):\d", yaml.safe_dump_all(resources()))) - {"localhost"}
    assert hosts <= {service["metadata"]["name"] for service in found} <= set(services())


def test_secrets_of_kubernetes_are_all_in_the_example() -> None:
    secret = yaml.safe_load((_INFRA / "kubernetes/secrets.example.yaml").read_text())
    given = set(secret["stringData"])
    required = {"PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_DATABASE_CONNECTION_URL"}
    assert required <= given
    for _, (container, _) in containers().items():
        for entry in container.get("envFrom", []):
            if "secretRef" in entry:
                assert entry["secretRef"]["name"] == secret["metadata"]["name"]
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                assert entry["valueFrom"]["secretKeyRef"]["key"] in given
    assert all("change-me" in value for value in secret["stringData"].values())


def test_the_image_holds_what_the_services_run() -> None:
    text = (_INFRA / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim", image) for image in stages)
    final = text.rpartition("FROM")[2]
    assert re.search(r"^USER 1000$", final, re.MULTILINE)
    assert final.index("USER") < final.index("CMD")
    assert "HEALTHCHECK" in final
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    ignored = (_INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    for name in copied:
        assert (_ROOT / name).exists(), name
        assert f"!{name}" in ignored, f"{name} is kept out of the image by Dockerfile.dockerignore"
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    declared = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"ENV ([^#]*?)\n(?=USER)", final, re.DOTALL))))
    assert {k: v for k, v in worker_environment().items() if not k.startswith("DASK")}.items() <= declared.items()


@pytest.mark.parametrize("script", sorted((_INFRA / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_batch_scripts_end_well_before_their_limit(script: Path) -> None:
    text = script.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    assert {"job-name", "time", "signal", "output"} <= set(options)
    assert options["signal"] == "B:INT@600"
    assert "set -euo pipefail" in text
