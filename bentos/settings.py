"""Where a service finds its state and how it runs, read once from the environment.

`corkboard up` sets these variables; by hand, `CORKBOARD_HOME` and `CORKBOARD_MILVUS_URI` are enough.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from validation.manifest import CHAMPION

MAKERS = 16
"""Processes that may give out request ids beside each other."""


class Profile(StrEnum):
    """How the four services meet."""

    COMPOSED = "composed"
    """One process: `Homefeed` holds events, retrieval and ranking itself (the default, and the fastest)."""
    SEPARATE = "separate"
    """`Homefeed` reaches the other three through `bentoml.depends`, one process each."""


class Settings(BaseModel):
    """One service's configuration. Unknown keys are an error; every default runs on a laptop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    """The home folder: lake (for the contract), Feast state, event log."""
    mlflow_uri: str
    milvus_uri: str | None = None
    """Milvus server; needed to load a release that has collections."""
    redis: str | None = None
    """Redis of the online store; the embedded SQLite store if left out."""
    alias: str = CHAMPION
    """The alias of the release model that the services follow."""
    utility: Path | None = None
    """File of utility weights and diversity; `utility.yaml` of the home, where there is one, if left out."""
    profile: Profile = Profile.COMPOSED
    replica_rows: int = Field(default=1_000_000, ge=0)
    """Collections up to this many rows are copied into the process; larger ones are asked over the network."""
    poll_s: float = Field(default=2.0, gt=0)
    """Seconds between two looks at the alias."""
    p99_ms: float = Field(default=500.0, gt=0)
    """What 99 of 100 answers are to come within: under load, work is left out and requests refused for it."""
    threads: int = Field(default=16, ge=1)
    """Threads that blocking store calls run on, so that none of them stalls the event loop."""

    makers: int = Field(default=1, ge=1, le=MAKERS - 1)
    """Processes that make answers, each with the release in its memory, beside one that loads the next release;
    1: the service makes them itself, and loads itself."""

    shortlist: int | None = Field(default=None, ge=1)
    """Candidates of a home feed that are ranked; as many as light ranking is measured at if left out."""
    candidates_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of home feeds that log what they fetched and cut, for the light ranker; 0 logs none."""
    candidates_cut: int = Field(default=200, ge=0)
    """Pins of such a request that are logged without having been shown, at most."""
    rankings_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of ranked answers that log the features and scores of what they show, for `corkboard replay`."""

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def events(self) -> Path:
        return self.home / "events"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `CORKBOARD_*` and `MLFLOW_TRACKING_URI`.

        Raises SettingsError when `CORKBOARD_HOME` is not set, and where a variable's value is none.
        """
        env = os.environ if environment is None else environment
        if not env.get("CORKBOARD_HOME"):
            raise SettingsError("CORKBOARD_HOME is not set; it names the folder that `corkboard --home` wrote")
        home = Path(env["CORKBOARD_HOME"]).expanduser().resolve()
        given = {name: env[variable] for name, variable in _VARIABLES.items() if env.get(variable)}
        given.setdefault("mlflow_uri", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
        try:
            settings = cls.model_validate({"home": home, **given})
        except ValidationError as error:
            raise SettingsError(_told(error)) from error
        if settings.makers > 1 and settings.profile is Profile.SEPARATE:
            raise SettingsError(
                "CORKBOARD_MAKERS is of the composed profile; unset it, or unset CORKBOARD_PROFILE"
            )
        return settings


class SettingsError(RuntimeError):
    """The environment does not say where the home is, or says what no setting can be."""


def _told(error: ValidationError) -> str:
    """Each bad variable with its value, and what it should be."""
    bad = error.errors(include_url=False)
    return "; ".join(f"{_VARIABLES[str(e['loc'][0])]} is {e['input']!r}: {e['msg'].lower()}" for e in bad)


_VARIABLES = {
    "mlflow_uri": "MLFLOW_TRACKING_URI",
    "milvus_uri": "CORKBOARD_MILVUS_URI",
    "redis": "CORKBOARD_REDIS",
    "alias": "CORKBOARD_RELEASE",
    "utility": "CORKBOARD_UTILITY",
    "profile": "CORKBOARD_PROFILE",
    "replica_rows": "CORKBOARD_REPLICA_ROWS",
    "poll_s": "CORKBOARD_POLL_S",
    "p99_ms": "CORKBOARD_P99_MS",
    "threads": "CORKBOARD_THREADS",
    "makers": "CORKBOARD_MAKERS",
    "shortlist": "CORKBOARD_SHORTLIST",
    "candidates_rate": "CORKBOARD_CANDIDATES_RATE",
    "candidates_cut": "CORKBOARD_CANDIDATES_CUT",
    "rankings_rate": "CORKBOARD_RANKINGS_RATE",
}


def profile(environment: Mapping[str, str] | None = None) -> Profile:
    """The profile alone: the service graph is fixed when the module is imported, before any home is known."""
    env = os.environ if environment is None else environment
    return Profile(env.get("CORKBOARD_PROFILE") or Profile.COMPOSED)


def service_url(service: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Where `service` runs, from `CORKBOARD_EVENTS_URL` and the like; None lets BentoML start it here."""
    env = os.environ if environment is None else environment
    return env.get(f"CORKBOARD_{service.upper()}_URL") or None
