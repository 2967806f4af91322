"""The job type `report_generation`: the sales of a date range as PDF, CSV or XLSX."""

from datetime import date
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gql_jobs.jobs.registry import Model, Payload, job_type

MAX_YEARS = 50
EARLIEST = date(1900, 1, 1)
"""The earliest date that spreadsheets can hold."""
LATEST = date(2999, 12, 31)


class ReportType(StrEnum):
    """What a report is about."""

    MONTHLY_SALES = "MONTHLY_SALES"
    """Sales by day or month, by product and by region, with the growth since the period before."""


class ReportFormat(StrEnum):
    """The file that is made of it."""

    PDF = "PDF"
    """Pages to print: totals, a chart, tables."""
    CSV = "CSV"
    """One table, whose first column says what a record is about."""
    XLSX = "XLSX"
    """A workbook with a sheet for each table, whose totals are formulas."""


class DateRange(Model):
    """A span of calendar days, both ends included; at most 50 years."""

    start: date = Field(description="The first day.")
    end: date = Field(description="The last day, not before the first.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise PydanticCustomError("date_range", "The end of the range is before its start.")
        if self.start < EARLIEST or self.end > LATEST:
            raise PydanticCustomError("date_range", f"The range must lie between {EARLIEST} and {LATEST}.")
        if (self.end.year - self.start.year, self.end.month, self.end.day) >= (
            MAX_YEARS,
            self.start.month,
            self.start.day,
        ):
            raise PydanticCustomError("date_range", f"The range must not be longer than {MAX_YEARS} years.")
        return self


class ReportGenerationResult(Model):
    """The report that was made."""

    url: str = Field(description="Where the file is, below the API's address.")
    rows: int = Field(description="The sales rows scanned in the date range; those of the period before do not count.")
    size_bytes: int = Field(description="The size of the file.")


class ReportGenerationPayload(Payload[ReportGenerationResult]):
    """A report to make."""

    report_type: ReportType = Field(description="What the report is about.")
    format: ReportFormat = Field(description="The file to make of it.")
    date_range: DateRange = Field(description="The days it covers.")


job_type(
    "report_generation",
    payload=ReportGenerationPayload,
    handler="gql_jobs_worker.handlers.report_generation:generate_report",
    cpu_bound=True,
    description="Adds up the sales of a date range and writes them as PDF, CSV or XLSX.",
)
