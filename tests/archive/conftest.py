from services.postgres import _postgres, postgres_url
from services.s3 import _server, s3

__all__ = ["_postgres", "_server", "postgres_url", "s3"]
