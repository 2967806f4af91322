"""The handler of the job type `report_generation`. Needs the extra ``reports``.

The range is added up month by month with a checkpoint after each, so that the next attempt goes on after the last one.
It runs in a process of its own, on an event loop of its own, so it may block.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gql_jobs.jobs.errors import PermanentError
from gql_jobs.jobs.handler import JobContext
from gql_jobs.jobs.payloads import canonical_json
from gql_jobs.jobs.types.report_generation import ReportFormat, ReportGenerationPayload, ReportGenerationResult
from gql_jobs_worker.handlers import environment_settings
from gql_jobs_worker.reports.aggregation import Aggregation, key_of
from gql_jobs_worker.reports.csv_text import write_csv
from gql_jobs_worker.reports.files import open_files
from gql_jobs_worker.reports.generator import ensure_sales, sales_file
from gql_jobs_worker.reports.pdf import write_pdf
from gql_jobs_worker.reports.report import Report, compose
from gql_jobs_worker.reports.source import Period, Source, parse_columns
from gql_jobs_worker.reports.xlsx import write_xlsx

_CONTENT_TYPES = {
    ReportFormat.PDF: "application/pdf",
    ReportFormat.CSV: "text/csv",
    ReportFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_PARTS_UNTIL, _WRITTEN, _SAVED = 85.0, 90.0, 95.0
"""Progress in percent at the end of each part of the work."""
_DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql")


async def generate_report(context: JobContext, payload: ReportGenerationPayload) -> ReportGenerationResult:
    """Add up the sales of the range, write the report, and store it with the job.

    :raises PermanentError: if the sales cannot be read as the settings describe them.
    :raises TransientError: if a database cannot be reached.
    """
    with TemporaryDirectory(prefix="gql-jobs-report-") as scratch:
        folder = Path(scratch)
        report = await _report(context, payload, folder)
        name = f"report.{payload.format.lower()}"
        path = folder / name
        context.progress(_WRITTEN, f"Writing {name}...")
        _writer(payload.format)(report, path)
        context.progress(_SAVED, f"Saving {name}...")
        artifact = await context.save_artifact(name, path, _CONTENT_TYPES[payload.format])
    return ReportGenerationResult(
        url=context.artifact_url(name), rows=report.total.rows, size_bytes=artifact.size_bytes
    )


async def _report(context: JobContext, payload: ReportGenerationPayload, scratch: Path) -> Report:
    period = Period(payload.date_range.start, payload.date_range.end)
    aggregation = Aggregation(period)
    window = Period(period.before().start, period.end)
    with _open_source(_bundled(context), scratch, window) as source:
        # The file's format is no part of the key: the sums are the same.
        key = key_of(canonical_json(payload.date_range), source.fingerprint)
        if context.saved is not None and not aggregation.restore(context.saved, key):
            context.log.warning("the checkpoint is of another report or other data: beginning anew")
        with source.snapshot():
            bounds = source.bounds(window)
        await _add_up(context, aggregation, source, bounds, key)
        return compose(aggregation, source, bounds)


@contextmanager
def _open_source(generated: Path | None, scratch: Path, window: Period) -> Iterator[Source]:
    """Yield the source of sales that the settings name.

    :param generated: the bundled data set, where the settings name none.
    :param scratch: a folder for what does not fit into memory.
    :param window: the days that will be asked for.
    :raises PermanentError: for a missing file, table or column.
    :raises TransientError: if the database cannot be reached.
    """
    config = environment_settings()
    columns = parse_columns(config.sales_columns or "")
    place = config.sales_source.get_secret_value() if config.sales_source is not None else None
    scheme, separator, _ = (place or "").partition("://")
    if place is None or not separator:
        with open_files(place or str(generated), columns, scratch, window) as files:
            yield files
        return
    if scheme.partition("+")[0] not in _DATABASES:
        raise PermanentError(
            f"GQL_JOBS_SALES_SOURCE must be a path of Parquet or CSV files or the URL of a database, not {scheme}://."
        )
    try:
        from gql_jobs_worker.reports.database import open_sales_table  # noqa: PLC0415 - only databases need SQLAlchemy
    except ModuleNotFoundError as error:
        raise PermanentError(f"Sales in a database need the extra 'reports': {error}.") from error
    with open_sales_table(place, config.sales_table, columns) as table:
        yield table


def _bundled(context: JobContext) -> Path | None:
    if environment_settings().sales_source is not None:
        return None
    folder = environment_settings().data_dir / "sales"
    if not sales_file(folder).exists():
        context.progress(0, "Making the bundled sales data, once...")
    return ensure_sales(folder)


async def _add_up(
    context: JobContext, aggregation: Aggregation, source: Source, bounds: Period | None, key: str
) -> None:
    with_rows = [bounds is not None and part.period.overlaps(bounds) for part in aggregation.parts]
    while aggregation.done < len(aggregation.parts):
        part = aggregation.parts[aggregation.done]
        if not with_rows[aggregation.done]:
            aggregation.skip()
            continue
        rows = aggregation.add(source)
        percent = _PARTS_UNTIL * sum(with_rows[: aggregation.done]) / sum(with_rows)
        context.progress(percent, f"{part.label}: {rows:,} rows".replace(",", " "))
        await context.checkpoint(aggregation.saved(key))


def _writer(kind: ReportFormat) -> Callable[[Report, Path], None]:
    match kind:
        case ReportFormat.PDF:
            return partial(write_pdf, font=environment_settings().report_font)
        case ReportFormat.CSV:
            return write_csv
        case ReportFormat.XLSX:
            return write_xlsx
