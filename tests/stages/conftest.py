from services.postgres import postgres, postgres_url
from services.s3 import _server, s3

__all__ = ["_server", "postgres", "postgres_url", "s3"]
