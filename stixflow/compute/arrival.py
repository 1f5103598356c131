"""Workers that Dask does not start from here: wait for them, refuse those that could not do the work, set them up."""

from __future__ import annotations

import os
from typing import Any

from stixflow.compute.processes import PROCESS_ENVIRONMENT


def wait_for_worker(client: Any, seconds: float, advice: str) -> None:
    """Wait for the first worker, refuse those that could not do the work, and give the libraries of all one thread.

    Raises
    ------
    ConnectionError
        If none comes in time, or one has other code or other versions of what carries calls to it.
    """
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise ConnectionError(f"no worker came within {seconds:g} s. Do: {advice}") from error
    _check_versions(client)
    client.register_plugin(_one_thread())


def _check_versions(client: Any) -> None:
    """Refuse workers that could not read what this process sends them: they would die of it one after the other."""
    from distributed.versions import error_message

    found = client.get_versions(check=False)
    message = error_message(found["scheduler"], found["workers"], found["client"])["warning"]
    differing = [name for name in ("distributed", "dask", "python", "cloudpickle") if f"| {name} " in message]
    if differing:
        raise ConnectionError(
            f"scheduler, workers and this process have different versions of {', '.join(differing)}:\n{message}\n"
            "Do: start them from the same environment or image"
        )
    _check_code(client)


def _check_code(client: Any) -> None:
    from stixflow.provenance import code_version

    def version_there() -> str:
        # By value, not by name: it must run also where there is no stixflow.
        try:
            from stixflow.provenance import code_version

            return code_version()
        except ImportError:
            return "no stixflow"

    here = code_version()
    there = {address: version for address, version in client.run(version_there).items() if version != here}
    if there:
        address, version = next(iter(there.items()))
        raise ConnectionError(
            f"{len(there)} workers run other code, as {address}: {version}. Expected: {here}, as this process. "
            "Do: start them again, from the same environment or image"
        )


def _one_thread() -> Any:
    """Return what gives workers that were not started from here one thread for numerical libraries, late ones too."""
    from distributed import WorkerPlugin

    environment = {name: value for name, value in PROCESS_ENVIRONMENT.items() if "THREADS" in name}

    class OneThread(WorkerPlugin):  # type: ignore[misc]
        name = "stixflow-one-thread"

        def setup(self, worker: Any) -> None:  # noqa: ARG002
            from threadpoolctl import threadpool_limits

            os.environ.update(environment)  # for libraries that are loaded later
            threadpool_limits(1)

    return OneThread()
