"""The ingest report as one page that opens anywhere, offline: no script, no font, nothing fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any

from validation.outcome import CheckpointOutcome, ExpectationOutcome, IngestReport, TableOutcome
from validation.whole_files import replace_text

LATEST = "latest.html"

Examples = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
"""A few refused rows by (table, reason)."""

_CELL = 60
"""Characters of a value shown in an example."""

_STYLE = """
:root { --ink: #211922; --soft: #6b6570; --line: #e6e2e4; --card: #fff; --page: #f7f5f3; --red: #c8102e;
  --good: #1f7a4d; --warn: #a86400; --bar: #d9cfd3; }
@media (prefers-color-scheme: dark) { :root { --ink: #f1edef; --soft: #a79fa5; --line: #3a3438; --card: #241f23;
  --page: #181417; --red: #ff6b7d; --good: #59c28e; --warn: #e0a64b; --bar: #4a4147; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -0.02em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
p.lead { color: var(--soft); margin: 0 0 24px; overflow-wrap: anywhere; }
section.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 6px 18px;
  overflow-x: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 14px 18px; }
.figure b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 13px; }
th, td { padding: 9px 12px 9px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > td { border-bottom: 0; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.none { color: var(--soft); }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--red); }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details { padding: 8px 0; border-bottom: 1px solid var(--line); } details:last-child { border-bottom: 0; }
summary { cursor: pointer; } summary .n { color: var(--soft); }
.meter { background: var(--bar); border-radius: 4px; height: 6px; min-width: 80px; margin-top: 8px; }
.meter i { display: block; height: 6px; border-radius: 4px; background: var(--red); }
svg { display: block; width: 100%; height: 120px; }
svg rect { fill: var(--red); } svg rect:hover { opacity: .6; }
.axis { display: flex; justify-content: space-between; color: var(--soft);
  font-size: 13px; padding-bottom: 8px; }
"""


def write(report: IngestReport, examples: Examples) -> Path:
    """Writes the page, the same as latest.html, and the report itself as JSON beside them; returns the page."""
    page = _page(report, examples)
    folder = report.page.parent
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (report.page, page),
        (folder / LATEST, page),
        (report.page.with_suffix(".json"), report.model_dump_json(indent=2)),
    ):
        replace_text(path, text)
    return report.page


def _page(report: IngestReport, examples: Examples) -> str:
    parts = [
        f"<h1>Ingest {escape(report.id)}</h1>",
        f'<p class="lead">{escape(str(report.source))} into {escape(str(report.lake))}, '
        f"{_moment(report.started_at)}, {report.seconds:.1f} s</p>",
        _figures(report),
        "<h2>Tables</h2>",
        _tables(report),
        _notes(report),
        "<h2>Actions by day</h2>" + _days(report.actions_by_day) if report.actions_by_day else "",
        "<h2>Quarantine</h2>" + _quarantine(report, examples) if report.refused else "",
        "<h2>Expectations</h2>" + _expectations(report.checkpoint, report.page.parent),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Ingest {escape(report.id)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _figures(report: IngestReport) -> str:
    tables = report.tables.values()
    refused = report.refused
    figures = [
        (f"{sum(t.read for t in tables):,}", "rows read", ""),
        (f"{sum(t.new for t in tables):,}", "new in the lake", ""),
        (f"{sum(t.updated for t in tables):,}", "updated", ""),
        (f"{sum(t.duplicate for t in tables):,}", "already known", ""),
        (f"{refused:,}", "in quarantine", "bad" if refused else "good"),
    ]
    if report.checkpoint is not None:
        asked = report.checkpoint.expectations
        held = sum(e.success for e in asked)
        tone = "good" if held == len(asked) else "warn"
        figures.append((f"{held} of {len(asked)}", "expectations hold", tone))
    cells = (f'<div class="figure"><b class="{c}">{n}</b><span>{what}</span></div>' for n, what, c in figures)
    return f'<div class="figures">{"".join(cells)}</div>'


def _tables(report: IngestReport) -> str:
    head = '<tr><th>table</th><th class="n">read</th><th class="n">new</th><th class="n">updated</th>'
    head += '<th class="n">known</th><th class="n">quarantined</th><th class="n">in the lake</th></tr>'
    rows = "".join(_table_row(name, t) for name, t in report.tables.items())
    rows += "".join(
        f'<tr><td class="none">{escape(name)}</td><td class="none" colspan="6">not there; '
        "whatever needs it is skipped and says so</td></tr>"
        for name in report.absent
    )
    return f'<section class="card"><table>{head}{rows}</table></section>'


def _table_row(name: str, t: TableOutcome) -> str:
    numbers = (t.read, t.new, t.updated, t.duplicate)
    cells = "".join(f'<td class="n">{n:,}</td>' for n in numbers)
    share = t.refused / t.read if t.read else 0.0
    refused = f'<td class="n{" bad" if t.refused else ""}">{t.refused:,}'
    if t.refused:
        refused += f'<div class="meter"><i style="width:{max(2, 100 * share):.0f}%"></i></div>'
    return f'<tr><td>{escape(name)}</td>{cells}{refused}</td><td class="n">{t.lake_rows:,}</td></tr>'


def _notes(report: IngestReport) -> str:
    notes = [
        f"{name}: columns left out, since the contract does not know them: {', '.join(t.unused_columns)}"
        for name, t in report.tables.items()
        if t.unused_columns
    ]
    if report.unknown:
        notes.append(f"Left alone, no contract tables: {', '.join(report.unknown)}")
    return "".join(f'<p class="lead">{escape(note)}</p>' for note in notes)


def _days(by_day: Mapping[date, int]) -> str:
    """Bars, one a day; at most 120 of them, the newest."""
    days = sorted(by_day)[-120:]
    top = max(by_day[d] for d in days)
    step = 1000 / len(days)
    bars = "".join(
        f'<rect x="{i * step:.2f}" y="{100 - 100 * by_day[d] / top:.2f}" width="{step * 0.8:.2f}" '
        f'height="{100 * by_day[d] / top:.2f}"><title>{d}: {by_day[d]:,}</title></rect>'
        for i, d in enumerate(days)
    )
    return (
        '<section class="card"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Actions by day, at most {top:,}">{bars}</svg>'
        f'<div class="axis"><span>{days[0]}</span><span>at most {top:,} a day</span>'
        f"<span>{days[-1]}</span></div></section>"
    )


def _quarantine(report: IngestReport, examples: Examples) -> str:
    parts = []
    for name, table in report.tables.items():
        for reason, count in table.quarantined.items():
            rows = "".join(
                f"<div><code>{escape(_row(row))}</code></div>" for row in examples.get((name, reason), ())
            )
            parts.append(
                f"<details><summary>{escape(name)}: {escape(reason)} "
                f'<span class="n">{count:,} rows</span></summary>{rows}</details>'
            )
        if table.quarantine is not None:
            parts.append(f'<p class="lead">All of them: <code>{escape(str(table.quarantine))}</code></p>')
    return f'<section class="card">{"".join(parts)}</section>'


def _row(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={_short(v)}" for k, v in row.items() if v is not None and k != "reason")


def _short(value: Any) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= _CELL else f"{text[:_CELL]}…"


def _expectations(checkpoint: CheckpointOutcome | None, folder: Path) -> str:
    if checkpoint is None:
        return '<p class="lead">The checkpoint was left out of this run.</p>'
    looked = ", ".join(f"{n:,} of {name}" for name, n in checkpoint.rows.items()) or "no new rows"
    lead = f"Rows looked at: {looked}."
    # Failures first: they are what a reader came for.
    ordered = sorted(checkpoint.expectations, key=lambda e: (e.success, not e.stops))
    rows = "".join(_expectation(e) for e in ordered)
    link = ""
    if checkpoint.docs is not None:
        where = os.path.relpath(checkpoint.docs, folder)
        link = f' <a href="{escape(where)}">Data Docs</a> hold every run (they fetch their styling).'
    return (
        f'<p class="lead">{escape(lead)}{link}</p><section class="card"><table>'
        f"<tr><th>expectation</th><th>severity</th><th>found</th><th></th></tr>{rows}</table></section>"
    )


def _expectation(e: ExpectationOutcome) -> str:
    found = e.exception or e.observed
    if found is None and e.unexpected_percent is not None:
        found = f"{e.unexpected_percent:.3g} % otherwise"
    mark = ("good", "holds") if e.success else (("bad", "stops") if e.stops else ("warn", "warns"))
    return (
        f"<tr><td>{escape(e.sentence())}</td><td>{escape(e.severity)}</td><td>{escape(found or '')}</td>"
        f'<td class="{mark[0]}">{mark[1]}</td></tr>'
    )


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
