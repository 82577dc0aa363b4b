"""What `corkboard retrain` does: the ranker learns on from what the services logged, into a new release."""

from __future__ import annotations

from infra import events, jobs
from infra.console import Steps, say
from infra.home import Home


def retrain(home: Home, *, promote: bool, seed: int = 0) -> int | None:
    """Bring the log in, let TransAct learn on from its newest weights, compose a release; its version.

    With `promote` the release goes through its gates and becomes the champion. Nothing is released, and None
    returned, where the newest versions are those of the champion, or of a release that was rolled back: only
    `corkboard promote` by hand puts that out again. A run that was cut short is finished by running it again;
    a release that was never champion is then measured again. Raises what the steps raise: JobError before the
    first tables, GateFailed where the release may not go out.
    """
    from training import promotion
    from training.pipelines.transact_card import MODEL

    jobs.need_lake(home)
    step = Steps(3 + promote)
    with step("Ingest: what the services logged, then its spent segments go"):
        jobs.ingest_events(home)
        events.compact(home)
    with step("Train: features, and TransAct learns on from its newest version, on the rows since"):
        jobs.train(home, models=[MODEL], warm_start=True, seed=seed)
    settled = promotion.settled(jobs.context(home), home.ledger)
    if settled is not None:
        how = "is the champion" if settled == jobs.champion(home) else "was rolled back"
        say(f"nothing to release: the newest versions are those of release {settled}, which {how}")
        return None
    with step("Release: measure together, register"):
        version = jobs.release(home, seed=seed)
    if promote:
        with step("Promote: gates, then the alias"):
            jobs.promote(home, version)
    return version
