"""Jobs that are created in a transaction of SQLAlchemy: ``create`` writes a row, and a relay moves it into the log."""

from gql_jobs.outbox.rows import create, table

__all__ = ["create", "table"]
