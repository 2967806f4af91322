"""Where sales come from. Says what a source can be asked; files and databases answer in their own way."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from gql_jobs.jobs.errors import PermanentError
from gql_jobs.settings import Settings
from workers.reports.columns import parse_columns
from workers.reports.period import Period
from workers.reports.sums import Sums

Dimension: TypeAlias = Literal["date", "product", "region"]
UNNAMED = "(none)"
"""What rows without a product or region are listed under."""
_DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql")


class Source(Protocol):
    """Rows of sales, added up where they are."""

    @property
    def fingerprint(self) -> str:
        """Differs when the data are other ones, as far as can be told without reading them."""

    def bounds(self, window: Period) -> Period | None:
        """The first and the last day within ``window`` that has a row, or None where no day has."""

    def sums(self, dimension: Dimension, period: Period, limit: int) -> list[tuple[str, Sums]]:
        """The sums by day (as ISO date), product or region; the ``limit`` largest amounts first.

        :raises PermanentError: for a value that is no date or number.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Within it all answers speak of the same rows."""


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
            from workers.reports.database import open_database  # noqa: PLC0415 - only databases need SQLAlchemy
        except ModuleNotFoundError as error:
            raise PermanentError(f"Sales in a database need the extra 'reports': {error}.") from error
        with open_database(place, settings.sales_table, columns) as database:
            yield database
        return
    from workers.reports.files import open_files  # noqa: PLC0415 - files know sources, too

    with open_files(place or str(generated), columns, scratch, window) as files:
        yield files
