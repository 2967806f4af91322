"""What is added up: rows, quantity and amount. Exact decimals, never floats."""

from decimal import Decimal, localcontext
from typing import NamedTuple

PRECISION = 60
"""Digits; more than any sum of a 64-bit count of rows can have."""
PLACES = 4
"""Decimal places that amounts and quantities keep; more are rounded, row by row."""
_CENT = Decimal("0.01")


class Sums(NamedTuple):
    """The sums over some rows."""

    rows: int = 0
    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        with localcontext(prec=PRECISION):
            return Sums(self.rows + other.rows, self.quantity + other.quantity, self.amount + other.amount)

    def minus(self, other: "Sums") -> "Sums":
        """What is left without the other."""
        return self.plus(Sums(-other.rows, -other.quantity, -other.amount))


def growth(now: Decimal, before: Decimal | None) -> Decimal | None:
    """The change as a share of what was before (0.25 is a quarter more); None where there was nothing to grow from."""
    if before is None or before <= 0:
        return None
    with localcontext(prec=PRECISION):
        return (now - before) / before


def plain(number: Decimal, places: int = 0) -> Decimal:
    """With ``places`` decimal places, or as many more as the number needs."""
    with localcontext(prec=PRECISION):
        short = number.quantize(Decimal(1).scaleb(-places))
        return short if short == number else number.normalize()


def money(amount: Decimal) -> Decimal:
    """With two decimal places, or more where they are not zero."""
    return plain(amount, 2)
