"""`corkboard replay` says what does not agree, and fails by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from infra.cli import app
from training import replay
from training.evaluation.ranking_records import logged, scored, seen
from training.replay import ReplayConfig, Sides, UnknownFeatures, beside_each_other, compared
from validation.events import RankingRecord, to_line


def sides(wrong: int) -> Sides:
    """1,000 rows of two features and a score; in `wrong` rows serving saw another number of clicks."""
    at = pd.Timestamp("2026-03-02 12:00", tz="UTC")
    keys = pd.DataFrame({"request_id": np.arange(1000) // 25, "pin_id": 7, "timestamp": at, "release": 2})
    offline = np.arange(1000, dtype=np.float32)
    online = offline.copy()
    online[:wrong] += 3
    same = (offline, offline)
    return Sides(keys, {"pin_clicks_7d": (online, offline), "cos_max": same, "score_save": same})


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int, *more: str) -> tuple[int, str]:
    found = compared([sides(wrong)], ReplayConfig())
    monkeypatch.setattr(replay, "replay", lambda ctx, events, config: found)
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "replay", *more])
    return answer.exit_code, answer.output


def test_a_feature_that_differs_is_named_and_fails_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = asked(tmp_path, monkeypatch, 2, "--json", str(tmp_path / "out.json"))
    assert code == 1 and "pin_clicks_7d: 99.8000% agree" in said and "pin 7" in said
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["below"] == ["pin_clicks_7d"] and numbers["requests"] == 40 and numbers["releases"] == [2]
    assert numbers["share"] == pytest.approx(1 - 2 / 3000)
    assert numbers["features"][0]["differing"] == 2 and numbers["features"][0]["largest"] == 3


def test_what_agrees_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(tmp_path, monkeypatch, 1)[0] == 0


def ranking(request: int, *features: str, heads: tuple[str, ...] = ("save",)) -> RankingRecord:
    """A ranking of one pin, by release 2, with these features."""
    return RankingRecord(
        event_id=request,
        user_id=5,
        timestamp_ms=1_772_452_800_000 + request,
        release=2,
        request_id=request,
        ranker="ranker@1",
        pin_ids=(7,),
        features=features,
        values=np.zeros(len(features), "<f4").tobytes(),
        heads=heads,
        scores=np.zeros(len(heads), "<f4").tobytes(),
        calibrated=True,
        sequence_length=0,
        sequence_newest_ms=0,
    )


def test_rankings_of_other_columns_are_read_apart_and_a_foreign_line_is_counted(tmp_path: Path) -> None:
    records = [
        ranking(1, "a", "b"),
        ranking(2, "a"),
        ranking(3, "a", "b"),
        ranking(4, "a", heads=("click", "hide")),
    ]
    log, said = tmp_path / "rankings-00000001.jsonl", []
    log.write_bytes(b"".join(map(to_line, records)) + b'{"user_id": "foreign"}\n')
    found = replay.kinds(logged(tmp_path, progress=said.append))
    assert said == ["1 unreadable line of rankings-00000001.jsonl"]
    assert [[one.request_id for one in own] for own in found] == [[1, 3], [2], [4]]
    assert [seen(own).shape for own in found] == [(2, 4), (1, 3), (1, 3)]
    assert [scored(own).shape for own in found] == [(2, 1), (1, 1), (1, 2)]


def test_a_feature_that_this_code_does_not_make_is_named() -> None:
    values = np.zeros(3, np.float32)
    with pytest.raises(UnknownFeatures, match=r"logged pin_moods, user_age, which .* replay with .*`--since`"):
        beside_each_other({"pin_moods": values, "cos_max": values, "user_age": values}, {"cos_max": values})
    found = beside_each_other({"cos_max": values}, {"cos_max": values + 1, "cos_mean": values})
    assert list(found) == ["cos_max"] and found["cos_max"][1].tolist() == [1, 1, 1]


def test_a_home_that_logged_nothing_says_how(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["--home", str(tmp_path), "replay"])
    assert answer.exit_code == 1 and "CORKBOARD_RANKINGS_RATE" in answer.output
