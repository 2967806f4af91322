"""The chart of a PDF report: bars for few days or months, a line for many."""

import math

from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.linecharts import HorizontalLineChart
from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors

from gql_jobs_worker.reports.report import Report

_BAR = colors.HexColor("#2F6DA8")
_GREY = colors.HexColor("#6B7785")
_GRID = colors.HexColor("#DDE4EB")
_HEIGHT = 164
"""Points."""
_LEFT, _BOTTOM = 34, 22
"""Points that the labels of the axes take."""
_MOST_BARS = 62
_MOST_LABELS = 12


def chart_of(report: Report, width: float, font: str) -> Drawing:
    """Return a drawing of the amounts over time, ``width`` points wide, with text in that font."""
    # Only a drawing may be as inexact as a float.
    values = [float(time.sums.amount) for time in report.times]
    chart = VerticalBarChart() if len(values) <= _MOST_BARS else HorizontalLineChart()
    chart.x, chart.y = _LEFT, _BOTTOM
    chart.width, chart.height = int(width) - _LEFT - 4, _HEIGHT - _BOTTOM - 6
    chart.data = [values]
    chart.categoryAxis.categoryNames = _labels(report)
    chart.categoryAxis.labels.fontName = chart.valueAxis.labels.fontName = font
    chart.categoryAxis.labels.fontSize = chart.valueAxis.labels.fontSize = 7
    chart.categoryAxis.labels.fillColor = chart.valueAxis.labels.fillColor = _GREY
    chart.categoryAxis.strokeColor = _GREY
    chart.categoryAxis.visibleTicks = False
    chart.valueAxis.strokeColor = None
    chart.valueAxis.visibleTicks = False
    chart.valueAxis.visibleGrid = True
    chart.valueAxis.gridStrokeColor = _GRID
    chart.valueAxis.labelTextFormat = _axis_label
    low, high, step = scale(min(values), max(values))
    chart.valueAxis.valueMin, chart.valueAxis.valueMax, chart.valueAxis.valueStep = low, high, step
    if isinstance(chart, VerticalBarChart):
        chart.bars[0].fillColor = _BAR
        chart.bars[0].strokeColor = None
        chart.groupSpacing = 2
    else:
        chart.lines[0].strokeColor = _BAR
        chart.lines[0].strokeWidth = 1.1
        chart.joinedLines = 1
    drawing = Drawing(width, _HEIGHT)
    drawing.add(chart)
    return drawing


def scale(low: float, high: float) -> tuple[float, float, float]:
    """Return the ends and the step of an axis that holds both values and zero, in round numbers."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 0.0, 1.0, 1.0
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (size, 2 * size, 2.5 * size, 5 * size, 10 * size) if step >= rough * 0.999)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _axis_label(number: float) -> str:
    """Return a number with a unit that keeps it short: 1.5M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _labels(report: Report) -> list[str]:
    """Return a label for each day or month, most of them empty, so that labels do not overlap."""
    pattern = "%Y-%m" if report.by_month else "%m-%d"
    every = math.ceil(len(report.times) / _MOST_LABELS)
    return [f"{time.period.start:{pattern}}" if index % every == 0 else "" for index, time in enumerate(report.times)]
