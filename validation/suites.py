"""The expectation suites: one a contract table, and one over the passage of all of them.

Critical expectations are the contract itself, asked again by other code than the row checks; one that fails
stops the ingest. Warnings are what a healthy data set looks like; they are reported and stop nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd

from validation.column_rules import CLOCK_SKEW, VECTORS
from validation.frames import POSITIVE, Inspection
from validation.tables import (
    ACTION,
    ACTIONS,
    BID,
    CREATED_AT,
    FOLLOWS,
    IMPRESSIONS,
    LOGGED,
    PINS,
    POSITION,
    PREDICTED,
    PROPENSITY,
    RANK,
    RELEVANCE,
    REQUEST_ID,
    TABLES,
    TIMESTAMP,
    Contract,
)

CRITICAL, WARNING = "critical", "warning"

FLOW = "ingest"
"""Name of the suite over the row counts of every table."""

MOSTLY_REFUSED = 0.5
"""A table of some size of which more than this share is refused was mapped wrongly: nothing enters."""
SOME_REFUSED = 0.01
_SOME_SIZE = 1000

FRESH = timedelta(days=7)
"""Actions older than this by the time of ingest are reported as stale."""

DRIFT, BROKEN = 0.5, 1.5
"""Kullback-Leibler divergence (nats) of the newest actions from those of the days before. More than the first
is reported; more than the second, a third of them of a kind never seen, stops a release."""

_USUALLY_PRESENT = {
    PINS.name: {"title": 0.9},
    IMPRESSIONS.name: {"source": 0.9, PROPENSITY: 0.9},
}
"""Optional columns that most rows of a healthy table have, and how many of them."""

_START = datetime(1970, 1, 1, tzinfo=UTC)


def table_suite(table: str, inspection: Inspection, contract: Contract, now: datetime) -> gx.ExpectationSuite:
    """The suite of one table, for the columns that its frame has."""
    frame = inspection.samples[table]
    expectations = [*_contract(table, frame, contract, now), *_health(table, inspection, now)]
    return gx.ExpectationSuite(name=table, expectations=expectations)


def flow_suite() -> gx.ExpectationSuite:
    """What the passage as a whole must look like; see `frames.flow_frame`."""
    return gx.ExpectationSuite(
        name=FLOW,
        expectations=[
            gxe.ExpectColumnValuesToBeInSet(column="table", value_set=list(TABLES), severity=CRITICAL),
            gxe.ExpectColumnValuesToBeBetween(
                column="refused_share",
                max_value=MOSTLY_REFUSED,
                row_condition=f"read >= {_SOME_SIZE}",
                condition_parser="pandas",
                severity=CRITICAL,
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="refused_share",
                max_value=SOME_REFUSED,
                row_condition=f"read >= {_SOME_SIZE}",
                condition_parser="pandas",
                severity=WARNING,
            ),
        ],
    )


def _contract(table: str, frame: pd.DataFrame, contract: Contract, now: datetime) -> list[gxe.Expectation]:
    spec = TABLES[table]
    asked: list[gxe.Expectation] = [gxe.ExpectTableRowCountToBeBetween(min_value=1, severity=CRITICAL)]
    for name in spec.required:
        asked.append(gxe.ExpectColumnValuesToNotBeNull(column=name, severity=CRITICAL))
    for name in (n for n in (*spec.ids, REQUEST_ID) if n in frame and frame[n].notna().any()):
        asked.append(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=1, severity=CRITICAL))
    if len(spec.key) == 1:
        asked.append(gxe.ExpectColumnValuesToBeUnique(column=spec.key[0], severity=CRITICAL))
    elif table != FOLLOWS.name:  # whose key holds nulls, which the expectation would leave out
        asked.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=list(spec.key), severity=CRITICAL))
    for name in (n for n in (TIMESTAMP, CREATED_AT) if n in frame and frame[n].notna().any()):
        asked.append(
            gxe.ExpectColumnValuesToBeBetween(
                column=name, min_value=_START, max_value=now + CLOCK_SKEW, severity=CRITICAL
            )
        )
    if ACTION in frame:
        names = list(contract.vocabulary.names)
        asked.append(gxe.ExpectColumnValuesToBeInSet(column=ACTION, value_set=names, severity=CRITICAL))
    bounds = {POSITION: (0, None), "duration_s": (0, None), PROPENSITY: (0, 1), RANK: (0, None), LOGGED: (0, 1)}
    bounds |= {BID: (0, None), PREDICTED: (0, 1), RELEVANCE: (0, None)}
    for name, (low, high) in bounds.items():
        if name in frame and frame[name].notna().any():
            asked.append(
                gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high, severity=CRITICAL)
            )
    for name in (v for v in VECTORS if f"{v}_dim" in frame and v in contract.vector_dims):
        dim, finite = f"{name}_dim", f"{name}_finite"
        asked += [
            gxe.ExpectColumnValuesToBeInSet(
                column=dim, value_set=[float(contract.vector_dims[name])], severity=CRITICAL
            ),
            gxe.ExpectColumnValuesToBeInSet(column=finite, value_set=[True], severity=CRITICAL),
        ]
    return asked


def _health(table: str, inspection: Inspection, now: datetime) -> list[gxe.Expectation]:
    frame = inspection.samples[table]
    asked: list[gxe.Expectation] = [
        gxe.ExpectColumnValuesToBeInSet(column=flag, value_set=[True], mostly=0.99, severity=WARNING)
        for flag in frame
        if str(flag).endswith("_known")
    ]
    for name, mostly in _USUALLY_PRESENT.get(table, {}).items():
        asked.append(gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=mostly, severity=WARNING))
    if table == PINS.name:
        asked.append(
            gxe.ExpectColumnValuesToBeBetween(column="topic_count", min_value=1, mostly=0.5, severity=WARNING)
        )
    if table == ACTIONS.name:
        asked += [
            gxe.ExpectColumnMaxToBeBetween(column=TIMESTAMP, min_value=now - FRESH, severity=WARNING),
            gxe.ExpectColumnMeanToBeBetween(column=POSITIVE, min_value=0.01, severity=WARNING),
        ]
        if inspection.action_mix:
            asked.append(_same_mix(inspection.action_mix, DRIFT, WARNING))
            if inspection.mix_stops:
                asked.append(_same_mix(inspection.action_mix, BROKEN, CRITICAL))
    return asked


def _same_mix(mix: Mapping[str, float], threshold: float, severity: str) -> gxe.Expectation:
    """The share of each action stays near what the lake had, within `threshold` nats."""
    return gxe.ExpectColumnKLDivergenceToBeLessThan(
        column=ACTION,
        partition_object={"values": list(mix), "weights": list(mix.values())},
        threshold=threshold,
        # An action never seen before would be infinitely far away; this gives it a small share instead.
        tail_weight_holdout=0.001,
        severity=severity,
    )
