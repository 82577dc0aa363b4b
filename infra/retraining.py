"""What `corkboard retrain` does: the ranker learns on from what the services logged, into a new release."""

from __future__ import annotations

from infra import events, jobs
from infra.console import Steps
from infra.home import Home


def retrain(home: Home, *, promote: bool, seed: int = 0) -> int:
    """Bring the log in, let TransAct learn on from its newest weights, compose a release; its version.

    With `promote` the release goes through its gates and becomes the champion. A step whose work is done does
    nothing, so that a run that was cut short is finished by running it again. Raises what the steps raise:
    JobError before the first tables, GateFailed where the release may not go out.
    """
    from training.pipelines.transact_card import MODEL

    jobs.need_lake(home)
    step = Steps(3 + promote)
    with step("Ingest: what the services logged, then its spent segments go"):
        jobs.ingest_events(home)
        events.compact(home)
    with step("Train: features, and TransAct learns on from its newest version, on the rows since"):
        jobs.train(home, models=[MODEL], warm_start=True, seed=seed)
    with step("Release: measure together, register"):
        version = jobs.release(home, seed=seed)
    if promote:
        with step("Promote: gates, then the alias"):
            jobs.promote(home, version)
    return version
