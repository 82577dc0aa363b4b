"""A maker over planted data, for tests of real processes."""

from __future__ import annotations

import os
from dataclasses import replace

from bentos.answer_logs import STREAMS, logs_on
from bentos.impressions import ServedPins
from bentos.loader import check_release
from bentos.maker import Line, LinesTo, Made, Told
from bentos.serving import ReleaseHolder
from bentos.settings import Settings
from tests.bentos import fakes
from tests.bentos.preview import PlantedParts


def open_planted(settings: Settings, line: Line) -> Made:
    """Serves whatever version it is asked for, from the planted catalogue."""
    own = settings.home / f"maker{os.getpid()}"
    own.mkdir()
    stack = fakes.planted_stack(own)
    stack.service.impressions.close()
    served = ServedPins()
    logs = logs_on(settings, Told(served, line), [LinesTo(stream, line) for stream in STREAMS])
    holder = ReleaseHolder(
        lambda: None,
        lambda version: replace(stack.release, version=version),
        check_release,
        poll_s=60,
    )
    feed = replace(
        stack.service,
        release=holder.current,
        impressions=logs.impressions,
        candidates=logs.candidates,
        rankings=logs.rankings,
    )
    return Made(PlantedParts(stack.pool, holder, feed, None, None), served)  # type: ignore[arg-type]
