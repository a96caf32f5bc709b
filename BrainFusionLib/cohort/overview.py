"""``cohort.html``: all cases on one page, those that need a look first; one file, no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from BrainFusionLib.case.result import WARNING, Result
from BrainFusionLib.report.pictures import plane_pictures, prepare_scene, with_edges
from BrainFusionLib.volume import Volume

THUMBNAIL = 112
# What is to be looked at first; words and signs, not colours alone.
ORDER = ("failed", "refused", "red", "amber", "green")
SIGNS = {"failed": "✖", "refused": "⊘", "red": "✖", "amber": "▲", "green": "✔"}
PLOTTED = (("expected_error_mm", "expected error, mm"), ("local_errors_median_mm", "local errors, median, mm"))
BARS = 24

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>BrainFusion: cohort</title><style>
:root { --page: #fff; --text: #1b1f24; --soft: #5b6570; --line: #d5dae0; --bar: #46638a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --text: #e6e9ed; --soft: #9aa4af; --line: #333a42;
  --bar: #8fb0dd; } }
body { margin: 0 auto; padding: 1rem 1.25rem; max-width: 1180px; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.35rem; margin: 0; } p { margin: .3rem 0; } .soft { color: var(--soft); font-size: .87rem; }
.plots { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1rem 0; } figure { margin: 0; } rect { fill: var(--bar); }
svg text { fill: currentColor; font-size: 11px; } figcaption { color: var(--soft); font-size: .87rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { text-align: left; border-bottom: 2px solid var(--line); padding: 0; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: .3rem;
  cursor: pointer; }
td { border-bottom: 1px solid var(--line); padding: .3rem; vertical-align: middle; overflow-wrap: anywhere; }
td:nth-child(2), td:nth-child(3) { white-space: nowrap; }
img { display: block; border-radius: 4px; background: #000; } a { color: inherit; }
@media print { th button::after { content: none; } tr { break-inside: avoid; } }
</style></head><body>
<h1>BrainFusion: cohort of $count cases</h1>
<p>$summary</p><p class="soft">Results are $warning. The cases that need a look come first; click a column to sort.</p>
<div class="plots">$plots</div>
<table><thead><tr>$head</tr></thead><tbody>$body</tbody></table>
<script>
"use strict";
document.querySelectorAll("th").forEach((cell, column) => {
  cell.querySelector("button")?.addEventListener("click", () => {
    const down = cell.getAttribute("aria-sort") === "ascending", body = document.querySelector("tbody");
    document.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value;
    const rows = Array.from(body.rows).sort((a, b) => {
      const [x, y] = [value(a), value(b)], both = Number(x) - Number(y);
      return (Number.isNaN(both) || x === "" || y === "" ? x.localeCompare(y) : both) * (down ? -1 : 1);
    });
    body.append(...rows);
  });
});
</script></body></html>
"""


def thumbnail(result: Result, mri: Volume) -> str:
    """Return a small axial picture, the CT's bone outlined on the MRI: a JPEG as text."""
    pictures = plane_pictures(prepare_scene(result.ct_in_mri, mri, result.fused), "axial")
    image = Image.fromarray(with_edges(pictures.mri, pictures.edges))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=70)
    return base64.b64encode(content.getvalue()).decode("ascii")


def overview(
    rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, str], reports: Mapping[str, str] | None = None
) -> str:
    """Return the page.

    Parameters
    ----------
    rows
        As in ``cohort.tsv``.
    thumbnails, reports
        Small pictures, and where the reports are, by the cases' names.
    """
    ordered = sorted(rows, key=lambda row: (ORDER.index(_state(row)), -float(row.get("expected_error_mm") or 0)))
    states = [_state(row) for row in rows]
    summary = ", ".join(f"{states.count(state)} {state}" for state in reversed(ORDER) if state in states)
    columns = ("case", "verdict", "expected error, mm", "local errors, mm", "seconds", "words")
    head = "<th></th>" + "".join(f'<th><button type="button">{name}</button></th>' for name in columns)
    told = {
        "count": str(len(rows)),
        "summary": summary,
        "warning": WARNING,
        "plots": "".join(_plot([row.get(name) for row in rows], words) for name, words in PLOTTED),
        "head": head,
        "body": "\n".join(_row(row, thumbnails.get(row["case"]), (reports or {}).get(row["case"])) for row in ordered),
    }
    page = _PAGE
    for name, value in told.items():
        page = page.replace("$" + name, value)
    return page


def _state(row: Mapping[str, Any]) -> str:
    return str(row["verdict"]) if row["status"] == "done" else str(row["status"])


def _row(row: Mapping[str, Any], picture: str | None, report: str | None) -> str:
    case, state = html.escape(str(row["case"])), _state(row)
    shown = f'<img src="data:image/jpeg;base64,{picture}" alt="" width="84">' if picture else ""
    name = f'<a href="{html.escape(report)}">{case}</a>' if report and row["status"] == "done" else case
    # What to look at: of a green case there is nothing to say.
    words = html.escape(str(row.get("error") or (row.get("reasons") if state != "green" else "") or ""))
    cells = [
        f"<td>{shown}</td>",
        f'<td data-value="{case}">{name}</td>',
        f'<td data-value="{ORDER.index(state)}">{SIGNS[state]} {state}</td>',
        *(_number(row.get(key)) for key in ("expected_error_mm", "local_errors_median_mm", "seconds")),
        f'<td data-value="{words}">{words}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _number(value: Any) -> str:
    if value is None or value == "":
        return '<td data-value="">–</td>'
    return f'<td data-value="{float(value):g}">{float(value):.3g}</td>'


def _plot(values: Sequence[Any], words: str) -> str:
    """Return a histogram as SVG; nothing where there is no number."""
    numbers = np.array([float(value) for value in values if value not in (None, "")])
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return ""
    top = max(1.05 * float(numbers.max()), 1e-6)
    counts, _ = np.histogram(numbers, bins=BARS, range=(0, top))
    width, height = 12, 90
    tall = height * counts / counts.max()
    bars = "".join(
        f'<rect x="{n * width}" y="{height - h:.1f}" width="{width - 1}" height="{h:.1f}"/>' for n, h in enumerate(tall)
    )
    return (
        f'<figure><svg width="{BARS * width}" height="{height + 18}" role="img" '
        f'aria-label="histogram of {words}">{bars}'
        f'<text y="{height + 14}">0</text>'
        f'<text x="{BARS * width}" y="{height + 14}" text-anchor="end">{top:.2g}</text></svg>'
        f"<figcaption>{words}; {len(numbers)} cases, median {np.median(numbers):.2g}</figcaption></figure>"
    )
