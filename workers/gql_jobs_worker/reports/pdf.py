"""The report as PDF: title, totals with growth, chart, tables whose header is on every page, page numbers.

Equal reports are equal files: no date of writing, no random identifier.
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    KeepTogether,
    LongTable,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from gql_jobs.jobs.errors import PermanentError
from gql_jobs_worker.reports.chart import chart_of
from gql_jobs_worker.reports.report import (
    NO_GROWTH,
    TITLE,
    Line,
    Report,
    shown_amount,
    shown_count,
    shown_growth,
    shown_quantity,
)
from gql_jobs_worker.reports.source import Sums, growth

_INK = colors.HexColor("#16324F")
_GREY = colors.HexColor("#6B7785")
_STRIPE = colors.HexColor("#F3F6F9")
_RULE = colors.HexColor("#C9D3DD")
_MARGIN = 18 * mm
_PADDING = 6
"""Points that reportlab adds to the margins."""
_WIDTH = A4[0] - 2 * _MARGIN
_SHORT = 30
"""Rows up to which a table is kept on one page."""
_WIDE_NAME = 38
"""Characters that fit beside the numbers; longer names are wrapped."""


class Fonts:
    """The names of a regular and a bold font.

    :param file: a TrueType font; None for Helvetica, which has Western European characters only.
    :raises PermanentError: if the file is no TrueType font.
    """

    def __init__(self, file: Path | None) -> None:
        self._encoding = None if file is not None else "cp1252"
        self.regular, self.bold = "Helvetica", "Helvetica-Bold"
        if file is not None:
            self.regular = self.bold = f"report-{file.stem}"
            try:
                pdfmetrics.registerFont(TTFont(self.regular, str(file)))
            except (TTFError, OSError) as error:
                raise PermanentError(f"GQL_JOBS_REPORT_FONT is no TrueType font: {error}") from error

    def shown(self, text: str) -> str:
        """Return the text on one line, with a question mark for each character that Helvetica lacks."""
        line = "".join(character if character.isprintable() else " " for character in text)
        return line if self._encoding is None else line.encode(self._encoding, "replace").decode(self._encoding)

    def style(self, size: float, *, bold: bool = False, color: Any = _INK, right: bool = False) -> ParagraphStyle:
        """Return a paragraph's style; ``size`` in points."""
        name = f"{size}{bold}{color}{right}"
        font = self.bold if bold else self.regular
        # Names without a space to break at are broken anywhere.
        more: dict[str, Any] = {"alignment": TA_RIGHT} if right else {"splitLongWords": 1}
        return ParagraphStyle(name, fontName=font, fontSize=size, leading=size * 1.3, textColor=color, **more)


def write_pdf(report: Report, path: Path, font: Path | None = None) -> None:
    """Write the report to ``path``.

    :param font: a TrueType file to use instead of Helvetica.
    :raises PermanentError: if it is no TrueType font.
    """
    fonts = Fonts(font)
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=_MARGIN - _PADDING,
        rightMargin=_MARGIN - _PADDING,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN + 4 * mm,
        title=f"{TITLE}, {report.period}",
        author="gql-jobs",
        subject=f"Sales from {report.period}",
        creator="gql-jobs",
        lang="en",
        invariant=1,
    )
    footer = f"{TITLE} · {report.period}"
    document.build(_story(report, fonts), canvasmaker=partial(_NumberedCanvas, fonts=fonts, footer=footer))


class _NumberedCanvas(Canvas):
    """A canvas that keeps all pages until their number is known, for the footers."""

    def __init__(self, *arguments: Any, fonts: Fonts, footer: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fonts = fonts
        self._footer = footer
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802
        self._pages.append(dict(self.__dict__))
        self._startPage()  # type: ignore[attr-defined]

    def save(self) -> None:
        for number, page in enumerate(self._pages, 1):
            self.__dict__.update(page)
            self.setFont(self._fonts.regular, 8)
            self.setFillColor(_GREY)
            self.drawString(_MARGIN, 12 * mm, self._footer)
            self.drawRightString(A4[0] - _MARGIN, 12 * mm, f"Page {number} of {len(self._pages)}")
            super().showPage()
        super().save()


def _story(report: Report, fonts: Fonts) -> list[Flowable]:
    story: list[Flowable] = [
        Paragraph(TITLE, fonts.style(22, bold=True)),
        Spacer(1, 2 * mm),
        Paragraph(f"{report.period} · compared with {report.comparison}", fonts.style(10, color=_GREY)),
        Spacer(1, 6 * mm),
        _totals(report, fonts),
        Spacer(1, 5 * mm),
    ]
    for note in report.notes:
        story += [Paragraph(escape(fonts.shown(note)), fonts.style(9, color=_GREY)), Spacer(1, 2 * mm)]
    if report.is_empty:
        return story
    unit = "month" if report.by_month else "day"
    story.append(KeepTogether([_heading(f"Amount by {unit}", fonts), chart_of(report, _WIDTH, fonts.regular)]))
    for label, lines in (("Product", report.products), ("Region", report.regions)):
        table = _lines(label, lines, report, fonts)
        story += [*_titled(f"By {label.lower()}", table, len(lines), fonts)]
    story += [*_titled(f"By {unit}", _times(unit.capitalize(), report, fonts), len(report.times), fonts)]
    return story


def _heading(text: str, fonts: Fonts) -> Flowable:
    style = fonts.style(13, bold=True)
    style.spaceBefore, style.spaceAfter = 8 * mm, 3 * mm
    return Paragraph(text, style)


def _titled(title: str, table: Table, rows: int, fonts: Fonts) -> list[Flowable]:
    """Return a heading and its table: a short one on one page, a long one where there is room for some lines."""
    block: list[Flowable] = [_heading(title, fonts), table]
    return [KeepTogether(block)] if rows <= _SHORT else [CondPageBreak(60 * mm), *block]


def _totals(report: Report, fonts: Fonts) -> Table:
    """Return a table of three cells: amount, quantity and rows, each with its growth."""
    now, before = report.total, report.before
    cards = (
        ("AMOUNT", shown_amount(now.amount), growth(now.amount, before.amount)),
        ("QUANTITY", shown_quantity(now.quantity), growth(now.quantity, before.quantity)),
        ("ROWS", shown_count(now.rows), growth(Decimal(now.rows), Decimal(before.rows))),
    )
    cells = [
        [
            Paragraph(label, fonts.style(7.5, color=_GREY)),
            Paragraph(number, fonts.style(17, bold=True)),
            Paragraph(f"Growth {shown_growth(grown)}", fonts.style(9, color=_tint(grown))),
        ]
        for label, number, grown in cards
    ]
    return Table(
        [cells],
        colWidths=[_WIDTH / 3] * 3,
        style=TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), _STRIPE),
                ("LINEBEFORE", (0, 0), (-1, -1), 2, _INK),
                ("LEFTPADDING", (0, 0), (-1, -1), 10),
                ("TOPPADDING", (0, 0), (-1, -1), 8),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 10),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ]
        ),
    )


def _tint(grown: Any) -> Any:
    if grown is None:
        return _GREY
    return colors.HexColor("#B3261E") if grown < 0 else colors.HexColor("#1B7F4B")


def _lines(label: str, lines: Sequence[Line], report: Report, fonts: Fonts) -> Table:
    rows = [
        [
            _name(line.name, fonts),
            *_numbers(line.sums),
            _before(line.before),
            shown_growth(line.growth),
        ]
        for line in lines
    ]
    before = report.amount_before
    total = ["Total", *_numbers(report.total), _before(before), shown_growth(growth(report.total.amount, before))]
    head = [label, "Rows", "Quantity", "Amount", "Amount before", "Growth"]
    return _table([head, *rows, total], (0.28, 0.11, 0.13, 0.18, 0.18, 0.12), fonts)


def _times(label: str, report: Report, fonts: Fonts) -> Table:
    rows = [
        [f"{time.period.start:%Y-%m}" if report.by_month else time.period.start.isoformat(), *_numbers(time.sums)]
        for time in report.times
    ]
    table = [[label, "Rows", "Quantity", "Amount"], *rows, ["Total", *_numbers(report.total)]]
    return _table(table, (0.28, 0.2, 0.24, 0.28), fonts)


def _numbers(sums: Sums) -> list[str]:
    return [shown_count(sums.rows), shown_quantity(sums.quantity), shown_amount(sums.amount)]


def _before(amount: Decimal | None) -> str:
    return NO_GROWTH if amount is None else shown_amount(amount)


def _name(name: str, fonts: Fonts) -> str | Paragraph:
    shown = fonts.shown(name)
    return shown if len(shown) <= _WIDE_NAME // 2 else Paragraph(escape(shown), fonts.style(8.5, color=colors.black))


def _table(rows: list[list[Any]], shares: Sequence[float], fonts: Fonts) -> Table:
    style: list[Any] = [
        ("FONT", (0, 0), (-1, -1), fonts.regular, 8.5),
        ("FONT", (0, 0), (-1, 0), fonts.bold, 8.5),
        ("FONT", (0, -1), (-1, -1), fonts.bold, 8.5),
        ("TEXTCOLOR", (0, 0), (-1, 0), colors.white),
        ("BACKGROUND", (0, 0), (-1, 0), _INK),
        ("ROWBACKGROUNDS", (0, 1), (-1, -2), [colors.white, _STRIPE]),
        ("LINEABOVE", (0, -1), (-1, -1), 0.8, _INK),
        ("LINEBELOW", (0, 1), (-1, -2), 0.25, _RULE),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
    ]
    widths = [share * _WIDTH for share in shares]
    return LongTable(rows, colWidths=widths, repeatRows=1, style=TableStyle(style))
