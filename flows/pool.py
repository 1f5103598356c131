"""The deployments on a work pool, for workers of Prefect on any host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

from prefect import deploy as deploy_all
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound

from flows.deployments import Deployment, Site, build
from flows.silence import watch_for_silence
from stixflow.errors import NotFound


def deploy(site: Site, deployments: Sequence[Deployment], pool: str, *, create: bool = False) -> list[str]:
    """Make the deployments on a work pool and return their names.

    Workers need this package installed and see the archive and the inbox under the same names; the flows are found by
    their module.

    Raises
    ------
    NotFound
        If there is no such pool and `create` is not given.
    """
    _check_pool(pool, create=create)
    watch_for_silence()
    made = [build(one, site) for one in deployments]
    with redirect_stdout(StringIO()):  # it tells people what to do next, also where a program asked
        deploy_all(*made, work_pool_name=pool, build=False, push=False, print_next_steps_message=False)
    return [f"{one.flow}/{site.name}" for one in deployments]


def _check_pool(pool: str, *, create: bool) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            if not create:
                raise NotFound(
                    f"there is no work pool {pool}",
                    expected="one that a worker polls",
                    advice="give --create-pool, or `prefect work-pool create --type process`",
                ) from None
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
