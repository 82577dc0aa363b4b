"""Runs the expectation suites over an inspection and says, in our own words, what held and what did not.

Great Expectations is slow to import (seven CPU-seconds): import this module only where a checkpoint runs.
Its Data Docs pages stand beside our own report; they load their styling from the network, ours does not.
"""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from validation.frames import Inspection, flow_frame
from validation.outcome import CheckpointOutcome, ExpectationOutcome
from validation.suites import FLOW, flow_suite, table_suite
from validation.tables import Contract

SITE = "corkboard"
"""Name of the Data Docs site."""


def run(inspection: Inspection, contract: Contract, now: datetime, docs: Path | None) -> CheckpointOutcome:
    """Validates every frame of `inspection`; writes Data Docs into the folder `docs` unless None.

    Failed expectations are part of the answer, not errors.
    """
    # Its per-run notices would drown the command's own lines.
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    _only_site(context, docs)
    frames = dict(inspection.samples)
    if inspection.flows:
        frames[FLOW] = flow_frame(inspection.flows)
    suites = {
        name: flow_suite() if name == FLOW else table_suite(name, inspection, contract, now) for name in frames
    }
    results = _validate(context, frames, suites, with_docs=docs is not None)
    return CheckpointOutcome(
        expectations=tuple(_outcome(name, result) for name, suite in results.items() for result in suite),
        rows={name: len(frame) for name, frame in frames.items() if name != FLOW},
        docs=None if docs is None else docs / "index.html",
    )


def _only_site(context: Any, docs: Path | None) -> None:
    for name in list(context.variables.data_docs_sites):
        context.delete_data_docs_site(name)
    if docs is not None:
        docs.mkdir(parents=True, exist_ok=True)
        context.add_data_docs_site(
            site_name=SITE,
            site_config={
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs.resolve()),
                },
            },
        )


def _validate(
    context: Any, frames: dict[str, pd.DataFrame], suites: dict[str, gx.ExpectationSuite], *, with_docs: bool
) -> dict[str, list[Any]]:
    """Expectation results by frame name."""
    source = context.data_sources.add_pandas("lake")
    definitions = []
    for name in frames:
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("sample")
        suite = context.suites.add(suites[name])
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        definitions.append(context.validation_definitions.add(definition))
    results: dict[str, list[Any]] = {}
    # A checkpoint hands one dataframe to all its definitions, so each table is a checkpoint of its own.
    for name, definition in zip(frames, definitions, strict=True):
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(name=name, validation_definitions=[definition], result_format="SUMMARY")
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": frames[name]})
        results[name] = [r for suite in outcome.run_results.values() for r in suite.results]
    if with_docs:
        context.build_data_docs(site_names=[SITE])
    return results


def _outcome(table: str, result: Any) -> ExpectationOutcome:
    config = result.expectation_config
    raised = [
        e["exception_message"]
        for e in (result.exception_info or {}).values()
        if isinstance(e, dict) and e.get("raised_exception")
    ]
    if (result.exception_info or {}).get("raised_exception"):
        raised.append(str(result.exception_info.get("exception_message")))
    details = result.result or {}
    return ExpectationOutcome(
        table=table,
        expectation=config.type,
        arguments={
            k: _argument(v)
            for k, v in config.kwargs.items()
            if k not in ("batch_id", "condition_parser") and v is not None
        },
        severity=str(getattr(config.severity, "value", config.severity)),
        success=bool(result.success),
        observed=_text(details.get("observed_value")),
        unexpected_percent=details.get("unexpected_percent"),
        exception="; ".join(raised) or None,
    )


def _argument(value: Any) -> str:
    if isinstance(value, dict) and "pass_through_filter" in value:
        return str(value["pass_through_filter"])
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:200]
