"""What may be asked for."""

import subprocess
import sys
from datetime import date
from typing import Any

import pytest

from gql_jobs.graphql.inputs import accepted_payload
from gql_jobs.jobs.errors import InvalidPayload
from gql_jobs.jobs.payloads import canonical_json
from gql_jobs.jobs.registry import load_job_types
from gql_jobs.jobs.types.report_generation import ReportFormat, ReportGenerationPayload
from tests.shipped import shipped_schema

CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { deduplicated } }"


def _validated(start: Any, end: Any, kind: str = "PDF") -> ReportGenerationPayload:
    job_type = load_job_types().get("report_generation")
    assert job_type is not None
    fields = {"report_type": "MONTHLY_SALES", "format": kind, "date_range": {"start": start, "end": end}}
    payload = accepted_payload(job_type, fields, "payload").value
    assert isinstance(payload, ReportGenerationPayload)
    return payload


def test_the_type_is_cpu_bound_and_names_its_handler() -> None:
    job_type = load_job_types().get("report_generation")
    assert job_type is not None
    assert job_type.cpu_bound
    assert job_type.handler == "gql_jobs_worker.handlers.report_generation:generate_report"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-02-29", "2024-02-29"),
        (date(2024, 1, 1), date(2024, 12, 31)),
        ("1974-05-01", "2024-04-30"),
        ("1900-01-01", "1949-12-31"),
        ("2950-01-01", "2999-12-31"),
    ],
)
def test_both_ends_belong_to_a_range_of_up_to_50_years(start: Any, end: Any) -> None:
    dates = _validated(start, end).date_range
    assert (str(dates.start), str(dates.end)) == (str(start), str(end))


@pytest.mark.parametrize(
    ("start", "end", "path", "said"),
    [
        ("2024-03-02", "2024-03-01", "payload.dateRange", "The end of the range is before its start."),
        ("1974-05-01", "2024-05-01", "payload.dateRange", "The range must not be longer than 50 years."),
        ("2000-01-01", "2051-01-01", "payload.dateRange", "The range must not be longer than 50 years."),
        ("1899-12-31", "1900-01-01", "payload.dateRange", "The range must lie between 1900-01-01 and 2999-12-31."),
        ("2999-01-01", "3000-01-01", "payload.dateRange", "The range must lie between 1900-01-01 and 2999-12-31."),
        ("2024-02-30", "2024-03-01", "payload.dateRange.start", "day value is outside expected range"),
        ("2024-02-01", None, "payload.dateRange.end", "valid date"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_its_path(start: Any, end: Any, path: str, said: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        _validated(start, end)
    (field,) = refused.value.extensions["fields"]
    assert field["path"] == path
    assert said in field["message"]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidPayload, match=r"payload\.format"):
        _validated("2024-01-01", "2024-01-31", "DOCX")


def test_the_stored_json_has_the_names_that_graphql_shows() -> None:
    assert canonical_json(_validated("2024-01-01", "2024-01-31", "XLSX")) == (
        b'{"dateRange":{"end":"2024-01-31","start":"2024-01-01"},"format":"XLSX","reportType":"MONTHLY_SALES"}'
    )


async def test_a_reversed_range_is_an_invalid_payload_for_clients() -> None:
    dates = {"start": "2024-02-01", "end": "2024-01-31"}
    report = {"reportType": "MONTHLY_SALES", "format": "CSV", "dateRange": dates}
    result = await shipped_schema().execute(CREATE, {"input": {"payload": {"reportGeneration": report}}})
    assert result.errors
    (error,) = result.errors
    assert error.extensions is not None
    assert error.extensions["code"] == "INVALID_PAYLOAD"
    assert [field["path"] for field in error.extensions["fields"]] == ["input.payload.reportGeneration.dateRange"]


def test_the_contract_needs_none_of_the_libraries() -> None:
    program = (
        "import sys, gql_jobs.jobs.types.report_generation;"
        "print(sorted(set(sys.modules) & {'duckdb', 'reportlab', 'xlsxwriter', 'sqlalchemy', 'workers'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_there_are_three_formats() -> None:
    assert [kind.name for kind in ReportFormat] == ["PDF", "CSV", "XLSX"]
