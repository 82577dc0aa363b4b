"""Settings that every service shares with BentoML."""

from __future__ import annotations

import os
from typing import Any

CONFIG: dict[str, Any] = {
    "workers": 1,
    "traffic": {"timeout": 15, "max_concurrency": 256},
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": True},
    # BentoML closes a connection after 100 calls, with calls still in flight on it; that lost 4 % of them.
    "runner_connection": {"max_requests": 1_000_000_000, "max_age": 1_000_000_000.0},
}
"""One worker: a second would hold a second copy of the release, and keep-alive clients stick to one anyway."""

if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
    # The middleware would still read every header, four times a request: as much work as all the others.
    CONFIG["tracing"] = {"excluded_urls": "."}
