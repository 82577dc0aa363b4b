"""What `corkboard calibration` does: probabilities that were served, against what people did."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from infra.console import console, say
from infra.home import Home


class CalibrationError(RuntimeError):
    """There is nothing to measure; the message says what to do first."""


class CalibrationReportConfig(BaseModel):
    """Which impressions, and where to put the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: float = Field(7.0, gt=0)
    within_hours: float = Field(24.0, gt=0)
    """An action answers an impression at most so many hours old: as training labels its rows."""
    json_file: Path | None = None
    figure: Path | None = None


def run(home: Home, config: CalibrationReportConfig) -> None:
    """Print every ranker version's table, newest first; write all numbers and the newest's diagrams if asked.

    An ads model has diagrams only where nothing else was ranked.
    Raises CalibrationError where no impression of the time was ranked, LakeError before the first ingest.
    """
    from training.evaluation.calibration_metrics import draw, text
    from training.evaluation.figure import check_format
    from training.evaluation.served_calibration import as_dict, interval, served_calibration
    from validation.lake import Lake

    if config.figure is not None:
        check_format(config.figure)
    within = timedelta(hours=config.within_hours)
    start, end = interval(config.days, within)
    found = served_calibration(home.events, Lake(home.lake), start=start, end=end, within=within)
    if not found:
        raise CalibrationError(
            f"{home.events} has no ranked impression from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC;"
            f" answers are waited for {config.within_hours:g} h (--within-hours)"
        )
    for one in found:
        console.print(f"[bold]{one.ranker}[/]{'' if one.calibrated else ', scores served uncalibrated'}")
        console.print(text(one.rows), markup=False, soft_wrap=True)
    if config.json_file is not None:
        config.json_file.parent.mkdir(parents=True, exist_ok=True)
        config.json_file.write_text(json.dumps(as_dict(found), indent=1))
        say(f"every number: {config.json_file}")
    if config.figure is not None:
        newest = next((one for one in found if not one.ads), found[0])
        draw(newest.rows, config.figure)
        say(f"reliability of {newest.ranker}: {config.figure}")
