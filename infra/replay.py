"""What `corkboard replay` does: what services saw when they ranked, against what training would see."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import console, say
from infra.home import Home

if TYPE_CHECKING:
    from training.replay import ReplayConfig, Replayed


def run(home: Home, config: ReplayConfig, *, least: float, json_file: Path | None) -> bool:
    """Print the agreement of every feature and score; True where a share `least` of each agrees."""
    from infra.jobs import context
    from training.replay import replay

    found = replay(context(home), home.events, config)
    console.print(_table(found), markup=False, highlight=False, soft_wrap=True)
    say(
        f"{found.rows:,} rows of {found.requests:,} requests, releases {', '.join(map(str, found.releases))}:"
        f" {found.share:.4%} of {sum(a.rows for a in found.agreements):,} values agree"
    )
    below = found.below(least)
    for one in below:
        say(f"{one.name}: {one.share:.4%} agree, less than {least:.2%}; {found.examples[one.name]}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(_as_dict(found, least), indent=1))
        say(f"every number: {json_file}")
    return not below


def _table(found: Replayed) -> str:
    """One line a feature, in columns."""
    lines = [("", "agree", "equal", "within", "no online", "no offline", "differ", "largest")]
    for one in found.agreements:
        counts = (one.equal, one.within, one.missing_online, one.missing_offline, one.differing)
        lines.append((one.name, f"{one.share:.3%}", *(f"{n:,}" for n in counts), f"{one.largest:.3g}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _as_dict(found: Replayed, least: float) -> dict[str, object]:
    return {
        "requests": found.requests,
        "rows": found.rows,
        "releases": found.releases,
        "share": found.share,
        "least": least,
        "below": [one.name for one in found.below(least)],
        "features": [
            asdict(one) | {"share": one.share, "example": found.examples.get(one.name)}
            for one in found.agreements
        ],
    }
