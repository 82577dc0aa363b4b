"""The main job on a tiny world, as a user runs it: tables in, feed out, events back into tables.

One home for the module: each test leaves it usable for the next, in the order they stand.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import count

import numpy as np
import pandas as pd
import psutil
import pytest

from bentos.log_segments import read
from feature_repo.jobs.replay import replay_sequences
from feature_repo.online.features import Freshness
from feature_repo.online.reader import OnlineFeatures
from infra import jobs, local
from infra.home import Home
from tests.training.small_networks import SMALL_TRANSACT
from training.data.world_truth import WorldTruth
from training.evaluation.planted import interest_share
from training.models.pinnability import PIN_PREFIX
from training.pipelines import pinsage
from training.pipelines import train as train_module
from training.pipelines.retrievers import LEARNED
from training.pipelines.transact import train_transact
from training.registry import Registry
from training.release import load_manifest
from training.replay import ReplayConfig, replay
from validation.gates import RETRIEVERS
from validation.lake import Lake
from validation.manifest import RELEASE_MODEL, ReleaseManifest

pytestmark = pytest.mark.slow

STRANGER = 987_654

SENT = 5
"""Events that the tests send before the log is taken in."""

WRONG = "impressions_30d"
"""The scalar of pins whose history is falsified."""

SECOND = ("content", "pinsage", "pixie", "two_tower", "pinnersage", "pinnability_gbdt")
"""What the second release is made of, in a content space of its own; every other part is left out."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home after `corkboard demo` on the tiny world, with a small TransAct, services running."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "CORKBOARD_MILVUS_URI", "CORKBOARD_REDIS"):
            patch.delenv(name, raising=False)
        patch.setattr(train_module, "train_transact", partial(train_transact, config=SMALL_TRANSACT))
        home = Home.at(tmp_path_factory.mktemp("job") / "home")
        for name, value in home.environment().items():
            patch.setenv(name, value)
        patch.setenv("CORKBOARD_RANKINGS_RATE", "1")
        try:
            jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
            yield home
        finally:
            jobs.down(home)


def _post(home: Home, path: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{home.ports()['homefeed']}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _feed(home: Home, user: int, limit: int = 25) -> dict:
    return _post(home, "/homefeed", {"user_id": user, "limit": limit})


def test_every_source_answers_and_the_answer_says_how_it_was_made(home: Home) -> None:
    answer = _feed(home, _users(home, 1)[0])
    assert answer["release"] == jobs.champion(home)
    assert answer["spaces"] == list(_manifest(home, "champion").spaces())
    assert answer["missing"] == []
    assert len(answer["pins"]) == 25
    assert {source["name"] for source in answer["sources"]} >= {
        "pinnersage",
        "pixie",
        "followed_boards",
        "followed_topics",
        "popular_by_topic",
    }
    of_everybody = {"pinnersage", "pinnerformer", "dcm", "two_tower", "pixie"} & set(
        _manifest(home, "champion").sources
    )
    assert {source["name"] for source in answer["sources"] if source["count"]} >= of_everybody
    assert {"pinnersage", "pixie"} <= of_everybody
    counts = [stage["count"] for stage in answer["stages"] if stage["name"] in ("merge", "unseen", "take")]
    assert counts == sorted(counts, reverse=True), "a funnel narrows"
    assert all(stage["ms"] >= 0 for stage in answer["stages"])


def test_the_release_holds_every_role_or_says_why_not(home: Home) -> None:
    said = _manifest(home, "champion")
    assert "content vectors" in said.skipped["pinsage"], "a tiny world is too little for PinSage"
    assert said.parts["pinnersage"].space == "content@1", "so that interests stay in content"
    served = [name for name in LEARNED if name in said.parts]
    assert len(served) >= 2
    assert all("learned too little" in said.skipped[name] for name in LEARNED if name not in served)
    assert [source for source in said.sources if source in RETRIEVERS] == [
        role for role in RETRIEVERS if role in said.parts
    ]
    checked = {check.collection: check.rows for check in said.collections}
    pins = Lake(home.lake).rows("pins")
    for name in served:
        assert checked[f"pins__{name}__1"] == pins
        assert said.metrics[f"{name}/recall_at_100"] > said.metrics["chance/recall_at_100"]
    online = OnlineFeatures.open(home.root, freshness=Freshness.unbounded())
    user = online.user(_users(home, 1)[0], (), ["pinnerformer@1"])
    assert ("pinnerformer@1" in user.embeddings) == ("pinnerformer" in served)


def test_feeds_match_planted_interests_far_better_than_popularity(home: Home) -> None:
    truth = WorldTruth(home.datasets / jobs.WORLD / "truth")
    users = _users(home, 40)
    feeds = np.array([[pin["pin_id"] for pin in _feed(home, user, 20)["pins"]] for user in users])
    stranger = [pin["pin_id"] for pin in _feed(home, STRANGER, 20)["pins"]]
    when = truth.config.end_time
    ours = interest_share(feeds, np.array(users), truth, when)
    popular = interest_share(np.tile(stranger, (len(users), 1)), np.array(users), truth, when)
    assert ours > 0.6
    assert ours > 2 * popular


def test_a_stranger_gets_popular_pins_and_is_told(home: Home) -> None:
    answer = _feed(home, STRANGER)
    assert answer["fallback"]
    assert {pin["source"] for pin in answer["pins"]} == {"popular_by_topic"}


def test_the_next_feed_reflects_an_action(home: Home) -> None:
    user = STRANGER + 1
    before = {pin["pin_id"] for pin in _feed(home, user)["pins"]}
    pins = Lake(home.lake).read("pins", ["pin_id", "topics"]).set_index("pin_id")["topics"]
    wanted = next(pin for pin, topics in pins.items() if len(topics) and pin not in before)
    answer = _post(home, "/events", {"events": [{"user_id": user, "pin_id": int(wanted), "action": "save"}]})
    assert answer["accepted"] == 1
    after = _feed(home, user, 100)
    near = [pin for pin in after["pins"] if pin["source"] == "pinnersage"]
    assert near, "one save is enough for the online run to find neighbours"
    topics = set(pins.loc[wanted])
    assert sum(bool(topics & set(pins.loc[pin["pin_id"]])) for pin in near) >= len(near) / 2


def test_a_pin_saved_a_moment_ago_is_walked_to(home: Home) -> None:
    """Two pins that nothing ties together are saved onto one new board: each is found from the other."""
    lake = Lake(home.lake)
    saved = lake.read("actions", ["pin_id", "board_id"])
    loose = np.setdiff1d(lake.read("pins", ["pin_id"])["pin_id"], saved.loc[saved["board_id"] > 0, "pin_id"])
    one, other = (int(pin) for pin in loose[:2])
    board = int(saved["board_id"].max()) + 1

    def saved_with() -> list[int]:
        answer = _post(home, "/related", {"pin_id": one, "limit": 100})
        return [pin["pin_id"] for pin in answer["pins"] if pin["source"] == "saved_together"]

    assert saved_with() == []
    events = [
        {"user_id": STRANGER + 7, "pin_id": pin, "action": "save", "board_id": board} for pin in (one, other)
    ]
    _post(home, "/events", {"events": events})
    _until(lambda: other in saved_with())
    answer = _post(home, "/related", {"board_id": board, "limit": 50})
    assert answer["pins"] and not {one, other} & {pin["pin_id"] for pin in answer["pins"]}


def test_hidden_and_saved_pins_stay_out(home: Home) -> None:
    shown = [pin["pin_id"] for pin in _feed(home, STRANGER + 2)["pins"]][:2]
    user = STRANGER + 3  # was shown nothing yet: only what they did can keep these pins out
    events = [
        {"user_id": user, "pin_id": shown[0], "action": "hide"},
        {"user_id": user, "pin_id": shown[1], "action": "save"},
    ]
    _post(home, "/events", {"events": events})
    assert not {pin["pin_id"] for pin in _feed(home, user, 100)["pins"]} & set(shown)
    # Each stranger draws other topics: the order is not asked for, only that nobody else lost the pins.
    strangers = iter(range(STRANGER + 10, STRANGER + 60))
    left = set(shown)
    while left:
        left -= {pin["pin_id"] for pin in _feed(home, next(strangers), 100)["pins"]}


def test_what_was_ranked_is_what_training_would_see(home: Home) -> None:
    """Every feature and score of some feeds, and the one feature whose history is then falsified."""
    asked = {_feed(home, user)["request_id"] for user in _users(home, 40)}
    _until(lambda: asked <= {record.request_id for record in read(home.events, "rankings")})
    config = ReplayConfig(max_requests=40)
    found = replay(jobs.context(home), home.events, config)
    assert found.requests == 40 and found.releases == (jobs.champion(home),)
    assert found.below(0.999) == (), found.examples
    newest = max((home.features / "pin_stats").glob("20*.parquet"))
    kept = newest.read_bytes()
    stats = pd.read_parquet(newest)
    stats[WRONG] = stats[WRONG] * 2 + 1
    stats.to_parquet(newest, index=False)
    try:
        found = replay(jobs.context(home), home.events, config)
    finally:
        newest.write_bytes(kept)
    assert PIN_PREFIX + WRONG in [one.name for one in found.below(0.999)]


def test_events_become_the_next_tables_once(home: Home) -> None:
    lake = Lake(home.lake)
    before = lake.rows("actions"), lake.rows("impressions")
    report = jobs.ingest_events(home)
    assert report is not None
    assert report.tables["actions"].new == SENT
    assert report.tables["impressions"].new > 100
    assert (lake.rows("actions") - SENT, lake.rows("impressions") > before[1]) == (before[0], True)
    jobs.ingest_events(home)
    assert lake.rows("actions") == before[0] + SENT


def test_a_second_release_is_followed_and_rolled_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second release is served from PinSage's space, as one of a larger world would be."""
    first = jobs.champion(home)
    monkeypatch.setattr(pinsage, "shortfall", lambda part: None)
    jobs.train(home, models=SECOND, force=True, lanes=1, seed=7)
    second = jobs.promote(home, jobs.release(home, seed=7), override="shows a release of two spaces")
    assert second != first
    _until(lambda: _feed(home, STRANGER)["release"] == second)
    answer = _feed(home, _users(home, 1)[0], 100)
    assert set(answer["spaces"]) >= {"content@2", "pinsage@2"} and answer["missing"] == []
    assert answer["spaces"] == list(_manifest(home, second).spaces())
    assert {space.partition("@")[2] for space in answer["spaces"]} == {"2"}, "nothing of the old spaces"
    assert any(pin["source"] == "pinnersage" for pin in answer["pins"])
    pin = answer["pins"][0]["pin_id"]
    related = _post(home, "/related", {"pin_id": pin, "limit": 20})
    assert related["fallback"] is None and {p["source"] for p in related["pins"]} >= {"similar_pins"}
    assert jobs.rollback(home) == first
    _until(lambda: _feed(home, STRANGER)["release"] == first)
    answer = _feed(home, _users(home, 1)[0], 100)
    assert answer["spaces"] == list(_manifest(home, first).spaces())
    assert {space.partition("@")[2] for space in answer["spaces"]} == {"1"}
    assert any(pin["source"] == "pinnersage" for pin in answer["pins"]), "rows of the old space are kept"


def test_errors_are_named(home: Home) -> None:
    for path, body, name in (
        ("/homefeed", {"user_id": 1, "limit": 100_000}, "LimitOutOfRange"),
        ("/related", {"pin_id": 99_999_999}, "PinNotFound"),
        ("/events", {"events": [{"user_id": 1, "pin_id": 1, "action": "repin"}]}, "UnknownAction"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            _post(home, path, body)
        assert 400 <= refused.value.code < 500
        assert json.loads(refused.value.read())["error"]["name"] == name


def test_killed_in_a_burst_it_comes_up_again_and_does_no_work_twice(home: Home) -> None:
    """kill -9 of the service: no acknowledged event is lost or doubled, and sequences are the log's replay."""
    registry = Registry(home.mlflow_uri)
    names = (RELEASE_MODEL, "content", "pinsage", "pixie", *LEARNED, "pinnersage", "pinnability_gbdt")
    made = jobs.aliases(home), {name: registry.versions(name) for name in names}
    promised = _burst_until_killed(home)
    jobs.down(home)
    assert all(row.state == "stopped" for row in local.status(home))
    jobs.demo(home, data=jobs.WORLD, size="tiny", seed=7)
    assert (jobs.aliases(home), {name: registry.versions(name) for name in names}) == made
    assert _feed(home, _users(home, 1)[0])["missing"] == []
    logged = [record.event_id for record in read(home.events, "actions")]
    assert promised <= set(logged) and len(logged) == len(set(logged))
    online = OnlineFeatures.open(home.root)
    assert replay_sequences(Lake(home.lake), home.events, online, write=False).differing == ()


def _burst_until_killed(home: Home, batches: int = 40) -> set[int]:
    """Ids of the events that were acknowledged before the home feed's processes were killed under them."""
    pins, promised = Lake(home.lake).read("pins", ["pin_id"])["pin_id"].to_numpy()[:5], set[int]()

    def send(client: int) -> None:
        for turn in count(1):
            ids = [client * 1_000_000 + turn * 5 + place for place in range(5)]
            events = [
                {"user_id": STRANGER + 20 + client, "pin_id": int(pin), "action": "save", "event_id": event_id}
                for pin, event_id in zip(pins, ids, strict=True)
            ]
            _post(home, "/events", {"events": events})
            promised.update(ids)

    service = psutil.Process(json.loads((home.run / "homefeed.json").read_text())["pid"])
    family = [*service.children(recursive=True), service]
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send, number) for number in range(1, 5)]
        _until(lambda: len(promised) >= 5 * batches)
        for process in family:
            process.kill()
    died = (OSError, http.client.HTTPException)
    assert all(isinstance(client.exception(), died) for client in clients), "under its request"
    return promised


def _manifest(home: Home, release: int | str) -> ReleaseManifest:
    return load_manifest(jobs.context(home), release)


def _users(home: Home, count: int) -> list[int]:
    """The users with most actions in the lake."""
    actions = Lake(home.lake).read("actions", ["user_id"], end=datetime.now(UTC))
    known = actions.loc[actions["user_id"] < STRANGER, "user_id"]
    return [int(user) for user in known.value_counts().index[:count]]


def _until(condition: Callable[[], bool], attempts: int = 600) -> None:
    """Ask again, tenths of a second apart, for as long as a slow machine may need."""
    for _ in range(attempts):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("the services did not follow the alias")
