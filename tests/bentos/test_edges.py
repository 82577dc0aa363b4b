"""Settings, ids, reasons, impressions' memory, error bodies: the small contracts at the service's edge."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bentos import ranking
from bentos.errors import BadId, NamedErrors, StoreUnavailable, body
from bentos.hop_messages import RankRequest, RetrieveRequest
from bentos.ids import JSON_SAFE, Ids
from bentos.impressions import ServedPins, impression_id, new_request_id
from bentos.messages import FeedRequest, RelatedAdsRequest
from bentos.opening import Opening
from bentos.settings import _VARIABLES, Profile, Settings, SettingsError, profile, service_url
from bentos.why import _short
from tests.bentos.conftest import run
from tests.bentos.fakes import Stack
from tests.bentos.preview import FixedHolder
from validation.forgotten import Forgotten, Person
from validation.ids import IdMap
from validation.tables import EntityKind


def test_settings_from_the_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment({"CORKBOARD_HOME": str(tmp_path)})
    assert settings.mlflow_uri == f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    assert settings.alias == "champion" and settings.profile is Profile.COMPOSED and settings.milvus_uri is None
    given = {
        "CORKBOARD_HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": "http://m:5000",
        "CORKBOARD_MILVUS_URI": "http://v:19530",
        "CORKBOARD_REDIS": "redis://r:6379",
        "CORKBOARD_RELEASE": "challenger",
        "CORKBOARD_PROFILE": "separate",
        "CORKBOARD_REPLICA_ROWS": "0",
        "CORKBOARD_POLL_S": "0.5",
    }
    settings = Settings.from_environment(given)
    assert (settings.alias, settings.replica_rows, settings.poll_s) == ("challenger", 0, 0.5)
    assert settings.redis == "redis://r:6379" and settings.profile is Profile.SEPARATE
    assert profile(given) is Profile.SEPARATE and profile({}) is Profile.COMPOSED
    assert service_url("events", {"CORKBOARD_EVENTS_URL": "http://e"}) == "http://e"
    assert service_url("events", {}) is None


def test_the_readme_names_every_setting() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    assert not [name for name in _VARIABLES.values() if f"`{name}`" not in readme]


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5"])
def test_a_setting_that_cannot_be_is_named_by_its_variable(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^CORKBOARD_SHORTLIST is '{value}': input should be "):
        Settings.from_environment({"CORKBOARD_HOME": str(tmp_path), "CORKBOARD_SHORTLIST": value})


def test_settings_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CORKBOARD_HOME is not set"):
        Settings.from_environment({})
    with pytest.raises(SettingsError, match="CORKBOARD_POLL_S is '-1': input should be greater than 0"):
        Settings.from_environment({"CORKBOARD_HOME": str(tmp_path), "CORKBOARD_POLL_S": "-1"})
    with pytest.raises(ValidationError):
        Settings(home=tmp_path, mlflow_uri="x", hosts=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("given", [True, "5", 5.0])
def test_a_count_is_a_number_and_a_truth_is_no_id(given: object) -> None:
    for request, of in ((FeedRequest, {"user_id": 1}), (RelatedAdsRequest, {"pin_id": 1})):
        with pytest.raises(ValidationError, match=r"1 validation error.*\s+limit"):
            request.model_validate({**of, "limit": given})
    if given is True:
        with pytest.raises(ValidationError, match="user_id"):
            FeedRequest.model_validate({"user_id": given})
        with pytest.raises(ValidationError, match="pin_ids"):
            RankRequest.model_validate({"pin_ids": [given]})


def test_ids_at_the_edge(tmp_path: Path) -> None:
    ids = Ids(IdMap(tmp_path / "ids.sqlite"), frozenset({EntityKind.PIN}))
    assert ids.inside(EntityKind.USER, 7) == ids.inside(EntityKind.USER, "7") == 7
    assert ids.inside(EntityKind.PIN, "never seen") == 0
    assert ids.inside_or_new(EntityKind.PIN, "oak") == 1 == ids.inside(EntityKind.PIN, "oak")
    assert ids.inside_or_new(EntityKind.PIN, 42) == 2 and ids.outside(EntityKind.PIN, [2, 1]) == ["42", "oak"]
    assert ids.all_inside(EntityKind.PIN, ["oak", "elm"]).tolist() == [1, 0]
    for wrong in (0, -1, 2**63, "x", "1.5", ""):
        with pytest.raises(BadId):
            ids.inside(EntityKind.USER, wrong)
    with pytest.raises(BadId, match="empty"):
        ids.inside_or_new(EntityKind.PIN, "")


def test_numbers_a_browser_would_round_go_out_as_text(tmp_path: Path) -> None:
    ids = Ids(IdMap(tmp_path / "ids.sqlite"), frozenset())
    assert ids.outside(EntityKind.PIN, [JSON_SAFE, JSON_SAFE + 1]) == [JSON_SAFE, str(JSON_SAFE + 1)]
    assert ids.inside(EntityKind.PIN, str(JSON_SAFE + 1)) == JSON_SAFE + 1
    assert FeedRequest(user_id=str(2**60)).user_id == str(2**60)


def test_served_pins_are_bounded_by_pin_and_by_user() -> None:
    served = ServedPins(users=2, per_user=3)
    served.add(1, [1, 2, 3, 4])
    served.add(2, [9])
    served.add(1, [5])
    served.add(3, [7])
    assert served.of(1).tolist() == [3, 4, 5] and served.of(2).tolist() == [] and served.of(3).tolist() == [7]
    served.add(0, [8])
    assert served.of(0).tolist() == [] and served.of(0).dtype == np.int64


def test_request_and_impression_ids() -> None:
    ids = [new_request_id(1_800_000_000_000) for _ in range(4_096)]
    assert len(set(ids)) == 4_096 and 0 < min(ids) <= max(ids) < 2**53
    assert impression_id(5, 7) == impression_id(5, 7) != impression_id(7, 5)
    assert 0 < impression_id(5, 7) < 2**63


def test_titles_are_cut_at_a_length() -> None:
    assert _short("  Oak \n bench ") == "Oak bench"
    assert len(_short("x" * 200)) == 42 and _short("x" * 200).endswith("…")


async def _answer(
    status: int, content: bytes, kind: bytes = b"application/json", asked: bytes = b"application/json"
) -> tuple[int, bytes]:
    """What NamedErrors makes of an app's answer to a POST of the type `asked`."""

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        half = len(content) // 2
        await send({"type": "http.response.body", "body": content[:half], "more_body": True})
        await send({"type": "http.response.body", "body": content[half:]})

    sent: list[dict] = []  # type: ignore[type-arg]

    async def send(message) -> None:  # type: ignore[no-untyped-def]
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/nowhere", "headers": [(b"content-type", asked)]}
    await NamedErrors(app)(scope, None, send)  # type: ignore[arg-type]
    whole = b"".join(m.get("body", b"") for m in sent[1:])
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(whole)).encode()
    return sent[0]["status"], whole


def test_the_frameworks_refusals_take_our_shape() -> None:
    detail = [{"loc": ["events", 0, "pin_id"], "msg": "Field required"}]
    status, content = run(_answer(400, json.dumps({"error": "1 error", "detail": detail}).encode()))
    assert status == 400
    assert json.loads(content)["error"] == {
        "name": "InvalidRequest",
        "message": "events.0.pin_id: Field required",
        "count": 1,
    }
    _, content = run(_answer(404, b'[{"error": "no such thing"}]'))
    assert json.loads(content)["error"] == {"name": "NotFound", "message": "no such thing"}
    _, content = run(_answer(502, b"not json at all"))
    assert json.loads(content)["error"]["name"] == "BadGateway"


def test_our_refusals_and_good_answers_pass_through() -> None:
    ours = body("PinNotFound", "pin 5")
    assert run(_answer(404, ours)) == (404, ours)
    assert run(_answer(200, b'{"error": "a title"}')) == (200, b'{"error": "a title"}')
    assert run(_answer(500, b"<html>", b"text/html")) == (500, b"<html>")


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [(404, "NotFound", "Not Found"), (405, "MethodNotAllowed", "Method Not Allowed")],
)
def test_the_routers_plain_words_take_our_shape(status: int, name: str, words: str) -> None:
    got, content = run(_answer(status, words.encode(), b"text/plain; charset=utf-8"))
    error = json.loads(content)["error"]
    assert (got, error["name"]) == (status, name) and f"POST /nowhere: {words}" in error["message"]


@pytest.mark.parametrize("asked", [b"multipart/form-data; boundary=x", b"text/plain", b"image/png"])
def test_a_body_that_is_not_json_is_refused_before_it_is_read(asked: bytes) -> None:
    status, content = run(_answer(200, b"{}", asked=asked))
    assert status == 415 and json.loads(content)["error"]["name"] == "UnsupportedMediaType"
    assert run(_answer(200, b"{}", asked=b"application/json; charset=utf-8")) == (200, b"{}")


def test_numbers_that_arrays_cannot_hold_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"pin_ids\.0"):
        RankRequest(pin_ids=[2**63])
    for wrong in ({"now_ms": 10**30}, {"now_ms": -1}, {"user_id": 2**63}, {"release": 2**63}):
        with pytest.raises(ValidationError):
            RankRequest(pin_ids=[1], **wrong)
        with pytest.raises(ValidationError):
            RetrieveRequest(**wrong)
    with pytest.raises(ValidationError):
        RetrieveRequest(seed=2**63)
    assert RankRequest(pin_ids=[2**63 - 1]).pin_ids == [2**63 - 1]


def test_a_ranker_past_its_deadline_is_unavailable_by_name(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ranking.RankingParts(stack.pool, FixedHolder(stack.release))  # type: ignore[arg-type]
    assert len(run(ranking.rank(parts, RankRequest(pin_ids=[1, 2]))).probabilities[0]) == 2
    monkeypatch.setattr(ranking, "RANK_DEADLINE_MS", 1)
    monkeypatch.setattr(ranking, "heads_of", lambda feed: time.sleep(0.3))
    with pytest.raises(StoreUnavailable, match="rank could not be read: deadline") as refused:
        run(ranking.rank(parts, RankRequest(pin_ids=[1, 2])))
    assert refused.value.why == "deadline"


def test_opening_tries_until_it_can() -> None:
    tries: list[int] = []
    closed: list[str] = []

    def build() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise FileNotFoundError("no lake yet")
        return "open"

    opening = Opening(build, closed.append, retry_s=0.01).start()
    for _ in range(500):
        if opening.opened:
            break
        run(_nap())
    assert opening.get() == "open" and len(tries) == 3
    opening.close()
    assert closed == ["open"] and not opening.opened


async def _nap() -> None:
    import asyncio

    await asyncio.sleep(0.01)


def test_what_is_not_open_says_why() -> None:
    from bentos.errors import NoRelease

    def build() -> str:
        raise FileNotFoundError("no lake yet; run `corkboard ingest DIR` first")

    opening = Opening(build, lambda _: None, retry_s=0.01).start()
    for _ in range(500):
        try:
            opening.get()
        except NoRelease as error:
            if "no lake yet" in error.message:
                break
        run(_nap())
    else:
        raise AssertionError("the reason never showed")
    opening.close()


def test_a_forgotten_user_is_nobody_whose_answers_nothing_logs(tmp_path: Path) -> None:
    gone = Forgotten().begun(Person(own_id="7", lake_id=7))
    counted = Ids(IdMap(tmp_path / "a.sqlite"), frozenset(), lambda: gone)
    assert [counted.inside(EntityKind.USER, user) for user in (7, "007", 8)] == [0, 0, 8]
    assert counted.inside(EntityKind.PIN, 7) == 7
    named = Ids(IdMap(tmp_path / "b.sqlite"), frozenset({EntityKind.USER}), lambda: gone)
    users = [str(n) for n in range(1, 9) if n != 7]
    assert [named.inside_or_new(EntityKind.USER, user) for user in users][-1] == 7, "a lake id is no name"
    assert named.inside(EntityKind.USER, "8") == 7 and named.inside(EntityKind.USER, "7") == 0
    id_map = IdMap(tmp_path / "b.sqlite")
    id_map.forget(EntityKind.USER, [3])
    assert named.inside(EntityKind.USER, *id_map.decode(EntityKind.USER, [3])) == 0, "nor by what stands for it"
