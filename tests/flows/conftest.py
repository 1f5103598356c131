from collections.abc import Iterator

import pytest
from services.prefect import Server, prefect_on_postgres

__all__ = ["client", "prefect_on_postgres"]


@pytest.fixture(scope="module")
def client(prefect_on_postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make this process a client of the server, before Prefect is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in prefect_on_postgres.environment.items():
            if name.startswith("PREFECT") or name == "DO_NOT_TRACK":
                patch.setenv(name, value)
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("home")))
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
            PREFECT_LOGGING_TO_API_ENABLED,
            temporary_settings,
        )

        settings = {
            PREFECT_API_URL: prefect_on_postgres.api,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_LOGGING_TO_API_ENABLED: False,
        }
        with temporary_settings(settings):
            yield
