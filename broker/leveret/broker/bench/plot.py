"""A bar chart as SVG, without any library: one group of bars for each scenario, one bar for each broker.

With two brokers each group has its own scale, so that the bars of a group show the ratio. With one, all
groups share a logarithmic scale, because scenarios are thousands of times apart.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

from leveret.broker.bench.report import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.broker.bench.runner import Summary

COLOURS: Final = ("#1f6f8b", "#e08e45")
WIDTH: Final = 760
LABEL_WIDTH: Final = 170
BAR_SPACE: Final = 450
BAR_HEIGHT: Final = 14
GROUP_GAP: Final = 10
TOP: Final = 64
BOTTOM: Final = 16


def chart(rows: Sequence[Sequence[Summary]], title: str = "Throughput") -> str:
    """Return the chart of the rates.

    Args:
        rows: for each scenario one summary for each broker; scenarios at a given rate are left out.
        title: the heading.
    """
    shown = [row for row in rows if row and not row[0].is_paced and any(each.rate for each in row)]
    brokers = [each.broker for each in shown[0]] if shown else []
    group_height = len(brokers) * BAR_HEIGHT + GROUP_GAP
    height = TOP + len(shown) * group_height + BOTTOM
    highest = max((each.rate or 0.0 for row in shown for each in row), default=0.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        _text(16, 24, title, size=16, weight="bold"),
        *_legend(brokers),
    ]
    for place, row in enumerate(shown):
        top = TOP + place * group_height
        scale = max(each.rate or 0.0 for each in row) if len(brokers) > 1 else None
        middle = top + len(brokers) * BAR_HEIGHT / 2 + 4
        parts.append(_text(LABEL_WIDTH - 10, middle, row[0].scenario, anchor="end"))
        for number, each in enumerate(row):
            parts += _bar(top + number * BAR_HEIGHT, number, each.rate, scale, highest)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(brokers: Sequence[str]) -> list[str]:
    scale = "each scenario has its own scale" if len(brokers) > 1 else "logarithmic scale"
    parts = [_text(16, 44, f"messages or operations per second; {scale}", colour="#666666")]
    right = WIDTH - 16
    for number, broker in reversed(list(enumerate(brokers))):
        right -= 8 * len(broker) + 26
        parts.append(f'<rect x="{right}" y="14" width="12" height="12" rx="2" fill="{COLOURS[number]}"/>')
        parts.append(_text(right + 18, 24, broker))
    return parts


def _bar(top: float, number: int, rate: float | None, scale: float | None, highest: float) -> list[str]:
    width = BAR_SPACE * _share(rate or 0.0, scale, highest)
    return [
        f'<rect x="{LABEL_WIDTH}" y="{top + 1:g}" width="{width:.1f}" height="{BAR_HEIGHT - 2}" rx="2" '
        f'fill="{COLOURS[number % len(COLOURS)]}"/>',
        _text(LABEL_WIDTH + width + 6, top + BAR_HEIGHT - 3, rounded(rate), size=11),
    ]


def _share(rate: float, scale: float | None, highest: float) -> float:
    """Return how long a bar is, 0 to 1."""
    if scale is not None:
        return rate / scale if scale else 0.0
    return math.log10(max(rate, 1.0)) / math.log10(max(highest, 10.0))


def _text(
    x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start",
    colour: str = "#222222",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
