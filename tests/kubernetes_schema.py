"""What the Dask operator and Kubernetes take, offline: the schemas that come with dask-kubernetes, taken strictly."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator


def problems(resource: dict[str, Any]) -> list[str]:
    """List what is wrong with a resource of the operator; a key that its schema does not know is wrong too."""
    validator = Draft7Validator(_strict(_schema(resource["kind"])))
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(resource)]


def pod_problems(pod: dict[str, Any]) -> list[str]:
    """List what is wrong with the spec of a pod."""
    spec = _schema("DaskCluster")["properties"]["spec"]["properties"]["worker"]["properties"]["spec"]
    return [
        f"{'/'.join(map(str, error.path))}: {error.message}"
        for error in Draft7Validator(_strict(spec)).iter_errors(pod)
    ]


@cache
def _schema(kind: str) -> dict[str, Any]:
    import dask_kubernetes

    folder = Path(dask_kubernetes.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.safe_load((folder / f"{kind.lower()}.yaml").read_text())
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"] |= {
        "apiVersion": {"const": f"{definition['spec']['group']}/{definition['spec']['versions'][0]['name']}"},
        "kind": {"const": kind},
        "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    return schema


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Refuse keys that are not in the schema, except where it says that any will do."""
    found = deepcopy(schema)
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    for name, part in found.get("properties", {}).items():
        found["properties"][name] = _strict(part)
    if isinstance(found.get("items"), dict):
        found["items"] = _strict(found["items"])
    if "properties" in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found
