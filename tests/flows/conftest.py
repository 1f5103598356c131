from services.postgres import postgres, postgres_url
from services.prefect import prefect_on_postgres

__all__ = ["postgres", "postgres_url", "prefect_on_postgres"]
