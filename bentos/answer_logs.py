"""The logs behind answers: what was shown, what a sample of requests fetched, and what their ranking saw."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from bentos import candidate_log, impressions, ranking_log
from bentos.candidate_log import CandidateLog, CandidateSample
from bentos.event_log import EventLog, RecordLog
from bentos.impressions import Impressions, ServedPins
from bentos.log_segments import read
from bentos.ranking_log import RankingLog
from bentos.settings import Settings
from validation.event_compaction import shown_from_ms
from validation.events import ImpressionRecord
from validation.lake import Lake

STREAMS = (impressions.STREAM, candidate_log.STREAM, ranking_log.STREAM)

GATHER_S = 0.2
"""Lines of answers wait so long for those of others: nobody waits for them, and to sync a file for each answer
takes more CPU than its lines."""


@dataclass(frozen=True)
class Logs:
    """What is written behind an answer."""

    impressions: Impressions
    candidates: CandidateLog
    rankings: RankingLog

    def close(self) -> None:
        self.candidates.close()
        self.rankings.close()
        self.impressions.close()


def open_streams(settings: Settings) -> list[EventLog]:
    """The logs of STREAMS, open for writing. Raises LogInUse, and leaves none open then."""
    with contextlib.ExitStack() as opened:
        logs = []
        for stream in STREAMS:
            logs.append(EventLog.open(settings.events, stream, gather_s=GATHER_S))
            opened.callback(logs[-1].close)
        opened.pop_all()
    return logs


def open_logs(settings: Settings, lake: Lake) -> Logs:
    """The home's logs of answers, open for writing. Raises LogInUse."""
    return logs_on(settings, served_pins(settings, lake), open_streams(settings))


def logs_on(settings: Settings, served: ServedPins, streams: Sequence[RecordLog]) -> Logs:
    """The settings' samples, written to logs in the order of STREAMS."""
    shown, fetched, ranked = streams
    sample = CandidateSample(requests=settings.candidates_rate, cut=settings.candidates_cut)
    return Logs(
        Impressions(shown, served), CandidateLog(fetched, sample), RankingLog(ranked, settings.rankings_rate)
    )


def served_pins(settings: Settings, lake: Lake) -> ServedPins:
    """What users were shown in the last days."""
    served = ServedPins()
    for record in read(settings.events, impressions.STREAM, since_ms=shown_from_ms(lake)):
        if isinstance(record, ImpressionRecord) and record.surface == "homefeed":
            served.add(record.user_id, [record.pin_id])
    return served
