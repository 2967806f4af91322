"""Which source of sales the settings name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gql_jobs.jobs.errors import PermanentError
from gql_jobs.settings import Settings
from gql_jobs_worker.reports.files import open_files
from gql_jobs_worker.reports.source import Period, Source, parse_columns

_DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql")


@contextmanager
def open_source(settings: Settings, generated: Path | None, scratch: Path, window: Period) -> Iterator[Source]:
    """The source that the settings name.

    :param generated: the bundled data set, where the settings name none.
    :param scratch: a folder for what does not fit into memory.
    :param window: the days that will be asked for.
    :raises PermanentError: for a missing file, table or column.
    :raises TransientError: if the database cannot be reached.
    """
    columns = parse_columns(settings.sales_columns or "")
    place = settings.sales_source.get_secret_value() if settings.sales_source is not None else None
    scheme, separator, _ = (place or "").partition("://")
    if place is not None and separator:
        if scheme.partition("+")[0] not in _DATABASES:
            raise PermanentError(
                f"GQL_JOBS_SALES_SOURCE must be a path of Parquet or CSV files or the URL of a database, not {scheme}://."
            )
        try:
            from gql_jobs_worker.reports.database import open_database  # noqa: PLC0415 - only databases need SQLAlchemy
        except ModuleNotFoundError as error:
            raise PermanentError(f"Sales in a database need the extra 'reports': {error}.") from error
        with open_database(place, settings.sales_table, columns) as database:
            yield database
        return
    with open_files(place or str(generated), columns, scratch, window) as files:
        yield files
