"""The suites really run: what they hold, what they warn of, and what they stop."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.validation.conftest import NOW, Door, actions, ads, at, impressions, judgements, pins, times
from validation.column_rules import Rules
from validation.errors import CheckpointFailed
from validation.frames import Flow, Inspection, Known, frame
from validation.ingest import DATA_DOCS
from validation.outcome import IngestReport
from validation.rows import check
from validation.tables import DEFAULT_VOCABULARY, TABLES, Contract

pytestmark = pytest.mark.slow

CONTRACT = Contract(vector_dims={"visual_embedding": 2})


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Door, IngestReport]:
    """A data set with every table, through the door with its checkpoint."""
    root = tmp_path_factory.mktemp("checkpoint")
    door = Door(root / "source", root / "home")
    door.write(
        topics={"topic_id": [10, 11], "name": ["home", "light"], "parent_id": [None, 10]},
        pins=pins(topics=[[10], [10, 77], []]),
        users={"user_id": [7, 8, 9]},
        boards={"board_id": [1], "user_id": [7]},
        follows={"user_id": [7], "timestamp": times(at(days=2)), "topic_id": [10]},
        ads=ads(),
        impressions=impressions(),
        candidates={
            **{name: impressions()[name] for name in ("request_id", "user_id", "pin_id", "timestamp")},
            "source": ["pixie", "pixie", "dcm"],
            "rank": [0, 1, 0],
            "stage": ["shown", "shown", "shown"],
            "logged": [1.0, 1.0, 1.0],
        },
        query_judgements=judgements(),
        actions=actions(board_id=[1, None, None, 2]),
    )
    return door, door.open(checkpoint=True)


def failing(report: IngestReport) -> set[str]:
    return {e.sentence() for e in report.checkpoint.expectations if not e.success}


def test_every_table_is_looked_at(ingested: tuple[Door, IngestReport]) -> None:
    _, report = ingested
    assert set(report.checkpoint.rows) == set(TABLES)
    asked = {e.table for e in report.checkpoint.expectations}
    assert asked == {*TABLES, "ingest"}
    assert not any(e.exception for e in report.checkpoint.expectations)
    assert report.checkpoint.stopping == ()


def test_unhealthy_data_is_warned_of_and_enters(ingested: tuple[Door, IngestReport]) -> None:
    _, report = ingested
    assert failing(report) == {
        "pins.topics_known: values to be in set (mostly 0.99, value_set [True])",
        "actions.board_known: values to be in set (mostly 0.99, value_set [True])",
        "impressions.source: values to not be null (mostly 0.9)",
        "impressions.propensity: values to not be null (mostly 0.9)",
    }
    assert len(report.checkpoint.warnings) == len(failing(report))


def test_data_docs_and_report_stand_side_by_side(ingested: tuple[Door, IngestReport]) -> None:
    door, report = ingested
    docs = door.home / "reports" / DATA_DOCS
    assert report.checkpoint.docs == docs / "index.html"
    assert "Data Docs" in (docs / "index.html").read_text()
    for table in TABLES:
        assert list((docs / "expectations").rglob(f"{table}.html"))
        assert list((docs / "validations" / table).rglob("*.html"))
    page = report.page.read_text()
    assert 'href="data_docs/index.html"' in page
    assert "pins.topics_known" in page


def test_nothing_new_leaves_only_the_passage_to_check(ingested: tuple[Door, IngestReport]) -> None:
    door, _ = ingested
    report = door.open(checkpoint=True)
    assert report.checkpoint.rows == {}
    assert {e.table for e in report.checkpoint.expectations} == {"ingest"}


def test_a_table_that_is_mostly_refused_stops_the_ingest(tmp_path: Path) -> None:
    door = Door(tmp_path / "source", tmp_path / "home")
    n = 1200
    many = {
        "user_id": [1] * n,
        "pin_id": np.where(np.arange(n) % 3 == 0, 1, 99),
        "action": ["save"] * n,
        "timestamp": times(*(at(minutes=i) for i in range(n))),
    }
    door.write(pins=pins(), actions=many)
    with pytest.raises(CheckpointFailed, match=r"nothing entered: ingest\.refused_share"):
        door.open(checkpoint=True)
    assert not door.lake.exists()
    assert door.files() == {}


def run(samples: dict[str, pd.DataFrame], **inspection: object) -> dict[str, bool]:
    """Expectation outcomes by sentence, without docs."""
    from validation.checkpoint import run as run_checkpoint

    looked = Inspection(samples=samples, flows={"actions": Flow(10, 10, 0, 0)}, **inspection)
    outcome = run_checkpoint(looked, CONTRACT, NOW, None)
    assert outcome.docs is None
    return {e.sentence(): e.success for e in outcome.expectations if not e.success or e.stops}


def actions_frame(tmp_path: Path, **columns: object) -> pd.DataFrame:
    import pyarrow as pa

    from validation.ids import IdMap

    rules = Rules(DEFAULT_VOCABULARY, NOW, IdMap(tmp_path / "ids.sqlite"), np.array([1, 2, 3]))
    rows = check(TABLES["actions"], pa.table(actions(**columns)), rules).rows
    return frame(rows, DEFAULT_VOCABULARY, Known())


FAULTS = {
    "event_id": ([1, 1, 2, 3], "actions.event_id: values to be unique"),
    "user_id": ([1, 0, 2, 3], "actions.user_id: values to be between (min_value 1)"),
    "action": (["save", "x", "save", "hide"], "actions.action: values to be in set"),
    "duration_s": ([1.0, -1.0, 2.0, 3.0], "actions.duration_s: values to be between (min_value 0)"),
}


@pytest.mark.parametrize("column", FAULTS)
def test_a_fault_that_slips_past_the_row_checks_is_critical(tmp_path: Path, column: str) -> None:
    from validation.checkpoint import run as run_checkpoint

    broken = actions_frame(tmp_path)
    values, sentence = FAULTS[column]
    broken[column] = values
    outcome = run_checkpoint(
        Inspection({"actions": broken}, {"actions": Flow(4, 4, 0, 0)}), CONTRACT, NOW, None
    )
    assert [e.sentence().startswith(sentence) for e in outcome.stopping] == [True]


def test_stale_actions_are_warned_of(tmp_path: Path) -> None:
    stale = actions_frame(tmp_path)
    stale["timestamp"] -= timedelta(days=30)
    assert any("actions.timestamp: max to be between" in sentence for sentence in run({"actions": stale}))


def test_a_drifting_mix_of_actions_is_warned_of(tmp_path: Path) -> None:
    usual = actions_frame(tmp_path)
    same = {"save": 0.25, "hide": 0.25, "click": 0.25, "closeup": 0.25}
    assert run({"actions": usual}, action_mix=same) == {}
    other = {"save": 0.001, "hide": 0.001, "click": 0.001, "closeup": 0.997}
    assert any("kl divergence" in sentence for sentence in run({"actions": usual}, action_mix=other))
    assert any("kl divergence" in sentence for sentence in run({"actions": usual}, action_mix={"report": 1.0}))


def test_an_expectation_that_raises_is_a_critical_failure() -> None:
    from validation.outcome import ExpectationOutcome

    raised = ExpectationOutcome(
        table="pins",
        expectation="expect_column_max_to_be_between",
        arguments={"column": "created_at"},
        severity="warning",
        success=False,
        exception="can't compare offset-naive and offset-aware datetimes",
    )
    assert raised.stops
