"""What `history`, `diff` and `gc` print."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from infra import local
from infra.console import console, say
from infra.home import Home
from infra.jobs import context


def history(home: Home) -> None:
    """The ledger as a table, oldest first: when, which move, to which release, by whom, past which gates."""
    from training.promotion import history as entries

    moves = entries(home.ledger)
    overridden = any(entry.override for entry in moves)
    rows = Table(box=None, pad_edge=False)
    for title in ("when (UTC)", "move", "champion", "before"):
        rows.add_column(title, no_wrap=True)
    for title in ("by", "gates", *(["override"] if overridden else [])):
        rows.add_column(title, min_width=len(title))
    for entry in moves:
        passed = len(entry.gates) - len(entry.failed)
        verdict = f"{passed} of {len(entry.gates)} pass" if entry.gates else ""
        if entry.failed:
            verdict += f", not {', '.join(gate.name for gate in entry.failed)}"
        rows.add_row(
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            entry.move.value,
            str(entry.champion),
            str(entry.replaced or ""),
            entry.by,
            verdict,
            *([escape(entry.override or "")] if overridden else []),
        )
    if rows.row_count:
        console.print(rows)
    else:
        say("nothing was promoted yet")


def diff(home: Home, a: int, b: int, *, measure: bool = False) -> None:
    """Two releases side by side; `measure` compares them anew, pair by pair, on today's lake."""
    from training.release import load_manifest
    from training.release_difference import difference

    ctx = context(home)
    if measure:
        for version in (a, b):
            load_manifest(ctx, version)
        local.ensure_milvus(home)
    found = difference(ctx, home.ledger, a, b, measure=measure)
    for title, lines in (("", found.facts), ("part", found.parts), ("gate", found.gates)):
        rows = Table(title, f"release {a}", f"release {b}", box=None, pad_edge=False)
        for line in lines:
            rows.add_row(line.what, escape(line.a), escape(line.b) if line.b != line.a else "[dim]the same[/]")
        console.print(rows, "")
    rows = Table(
        "metric", f"release {a}", f"release {b}", "difference", "interval", "n", box=None, pad_edge=False
    )
    for line in found.metrics:
        both = line.a is not None and line.b is not None
        rows.add_row(
            line.name,
            _number(line.a),
            _number(line.b),
            f"{line.b - line.a:+.4g}" if both else "",
            f"{line.interval[0]:+.4g} to {line.interval[1]:+.4g}" if line.interval else "",
            f"{line.n:,}" if line.n is not None else "",
        )
    console.print(rows)
    if not any(line.interval for line in found.metrics):
        say("neither was promoted over the other: `--measure` compares them user by user")


def gc(home: Home, *, releases: int, dry_run: bool) -> None:
    """Clear away what releases that nobody can go back to have left behind, and say what."""
    from training.retention import RetentionConfig, collect

    if home.mlflow_uri.startswith("sqlite:") and not home.mlflow_artifacts.parent.exists():
        say("nothing was trained in this home: there is nothing to clear away")
        return
    local.ensure_milvus(home)
    found = collect(context(home), home.ledger, RetentionConfig(releases=releases), dry_run=dry_run)
    kept = ", ".join(f"{version} ({why})" for version, why in found.kept.releases.items())
    say(f"kept releases: {kept or 'none'}")
    if not found.cleared:
        say("there is nothing to clear away")
        return
    rows = Table("what", "name", "bytes", box=None, pad_edge=False)
    for leftover in found.cleared:
        rows.add_row(leftover.kind, leftover.name, f"{leftover.bytes:,}")
    console.print(rows)
    say(f"{found.bytes:,} bytes {'would be' if dry_run else 'were'} cleared away")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
