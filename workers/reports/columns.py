"""Which column of the sales data holds what."""

import csv
from typing import NamedTuple

from gql_jobs.jobs.errors import PermanentError

MEANING = "GQL_JOBS_SALES_COLUMNS is a list like date=order_date,product=sku"


class Columns(NamedTuple):
    """The names of the columns, as the data spell them."""

    date: str = "date"
    product: str = "product"
    region: str = "region"
    quantity: str = "quantity"
    amount: str = "amount"

    def require(self, present: list[str], where: str) -> None:
        """:raises PermanentError: naming the columns that the data do not have."""
        missing = [f"{name!r} (for {field})" for field, name in self._asdict().items() if name not in present]
        if missing:
            listed = ", ".join(missing)
            shown = ", ".join(present[:30])
            raise PermanentError(f"{where} has no column {listed}. It has: {shown}. {MEANING}.")


def parse_columns(mapping: str) -> Columns:
    """The columns that a mapping names; those it leaves out have the names of the bundled data set.

    Written as one record of CSV, so a name with a comma in it stands in quotes: ``"amount=total, net"``.

    :raises PermanentError: if the mapping cannot be read.
    """
    named: dict[str, str] = {}
    for part in next(csv.reader([mapping], skipinitialspace=True), []):
        field, equals, name = part.partition("=")
        field, name = field.strip(), name.strip()
        if not equals or not name or field not in Columns._fields or field in named:
            known = ", ".join(Columns._fields)
            raise PermanentError(f"The entry {part!r} cannot be. {MEANING}; it can name once each: {known}.")
        named[field] = name
    return Columns(**named)
