"""Bar charts as SVG: one per bench, readable on light and dark pages."""

from collections.abc import Sequence
from html import escape

from benchmarks.measurement import ALL_OURS, Record
from benchmarks.table import amount

_WIDTH, _LABELS, _FIGURES, _ROW, _BAR, _TOP = 720, 170, 110, 26, 16, 40
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.t{font-weight:600;fill:#24292f}.o{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#8b949e}.t{fill:#e6edf3}}"
)
_OURS, _OTHER, _WHISKER = "#2da44e", "#8c959f", "#57606a"


def chart(title: str, measured: Sequence[Record]) -> str:
    """One metric of one bench: a bar for each system, best first, with the range of its repetitions."""
    less = not measured[0]["unit"].endswith("/s")
    bars = sorted(measured, key=lambda record: record["value"], reverse=not less)
    scale = (_WIDTH - _LABELS - _FIGURES) / max(record["max"] for record in bars)
    unit = measured[0]["unit"] + (", less is better" if less else "")
    height = _TOP + _ROW * len(bars) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="t" x="0" y="18">{escape(title)} ({escape(unit)})</text>',
    ]
    for number, record in enumerate(bars):
        parts += _bar(record, _TOP + _ROW * number, scale)
    return "\n".join([*parts, "</svg>", ""])


def _bar(record: Record, y: int, scale: float) -> list[str]:
    ours = record["system"] in ALL_OURS
    middle, end = y + _BAR / 2, _LABELS + record["value"] * scale
    low, high = _LABELS + record["min"] * scale, _LABELS + record["max"] * scale
    style, fill = (' class="o"', _OURS) if ours else ("", _OTHER)
    return [
        f'<text{style} x="{_LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(record["system"])}</text>',
        f'<rect x="{_LABELS}" y="{y}" width="{max(end - _LABELS, 1):.1f}" height="{_BAR}" rx="2" fill="{fill}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_WHISKER}"/>',
        f'<text{style} x="{max(end, high) + 8:.1f}" y="{y + 13}">{amount(record["value"])}</text>',
    ]
