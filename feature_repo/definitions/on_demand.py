"""Features that need the request: computed by Feast at read time, the same way offline and online."""

from __future__ import annotations

from typing import Any

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

from feature_repo.definitions.views import pin_stats

request = RequestSource(
    name="request",
    schema=[Field(name="request_time_ms", dtype=Int64)],
    description="When the request came, Unix ms",
)


@on_demand_feature_view(
    sources=[request, pin_stats[["created_at_ms"]]],
    schema=[Field(name="pin_age_days", dtype=Float64)],
    mode="python",
    description="Days since the pin was created, at the time of the request; -1 for a pin without features",
)
def pin_age(inputs: dict[str, Any]) -> dict[str, Any]:
    ages = [
        max(now - created, 0) / 86_400_000 if created else -1.0
        for now, created in zip(inputs["request_time_ms"], inputs["created_at_ms"], strict=True)
    ]
    return {"pin_age_days": ages}
