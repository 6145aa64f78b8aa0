"""Bars with ranges as SVG, written by hand: no library, no script in the picture."""

import html
import statistics

from ..brokers import APACHE, BROKERS, WEIRMQ
from ..goals import HIGH, number

WIDTH, NAMES, BAR, GAP, HEAD = 860, 190, 18, 5, 30
# To the right of the longest bar: its figure and ratio.
FIGURES = 190
COLOURS = {WEIRMQ: "#1f7a5c", APACHE: "#8c8c8c", "rocketmq-rust": "#c98b2b",
           "rocketmq-rust-no-wait": "#dcb36a", "nats": "#5577a8", "ceiling": "#dddddd"}


def plot(title, rows):
    """A panel for each row, each with its own scale that begins at zero."""
    parts, y = [], HEAD + 10
    for row in rows:
        part, height = panel(row, y)
        parts += part
        y += height
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>',
        text(12, 22, title, size=15, weight="bold"), *parts, "</svg>", ""])


def panel(row, y):
    bars = [(name, BROKERS[name].shown, row.values[name]) for name in BROKERS if row.values.get(name)]
    if row.ceiling:
        bars.append(("ceiling", "server that only answers", row.ceiling))
    longest = max(max(values) for _, _, values in bars) or 1
    scale = (WIDTH - NAMES - FIGURES) / longest
    parts = [text(12, y + 14, f"{row.label}, {row.unit} ({row.better} is better)", weight="bold")]
    y += HEAD - 8
    for name, shown, values in bars:
        middle, low, high = statistics.median(values), min(values), max(values)
        parts += [
            text(NAMES - 8, y + 13, shown, anchor="end"),
            f'<rect x="{NAMES}" y="{y}" width="{max(middle * scale, 1):.1f}" height="{BAR}" fill="{COLOURS[name]}"/>',
        ]
        if low != high:
            parts.append(f'<path d="M{NAMES + low * scale:.1f} {y + BAR / 2}H{NAMES + high * scale:.1f}" '
                         'stroke="black" stroke-width="1.5"/>')
        parts.append(text(NAMES + high * scale + 8, y + 13, number(middle) + ratio(row, name, middle)))
        y += BAR + GAP
    return parts, HEAD - 8 + len(bars) * (BAR + GAP) + 14


def ratio(row, name, middle):
    if name in (APACHE, "ceiling"):
        return ""
    shown = []
    if row.ratio_of(name):
        shown.append(f"{row.ratio_of(name):.1f}x Apache")
    if row.ceiling and row.better == HIGH:
        shown.append(f"{100 * middle / statistics.median(row.ceiling):.0f} % of ceiling")
    return f"  ({', '.join(shown)})" if shown else ""


def text(x, y, words, size=12, weight="normal", anchor="start"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
            f'text-anchor="{anchor}">{html.escape(words)}</text>')
