"""From a ranker's probabilities to a page: calibration, utility and diversity, alone and failing one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from bentos.candidates import KINDS, Candidates
from bentos.engines import Engines, LocalRanking, LocalRetrieval, RemoteRanking
from bentos.features import PinTable
from bentos.feed import Feed, Surface
from bentos.heads import Heads
from bentos.hop_messages import RankAnswer
from bentos.log_segments import read
from bentos.messages import FeedAnswer, FeedRequest
from bentos.policy_file import ServedPolicy
from bentos.ranking_stages import CALIBRATION_FEATURES, Calibrate, Diversify, Rank, Value, calibration_features
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, NOW_MS, PER_TOPIC, Stack, pin_of, topic_of
from training.models.calibration import Calibrator, HeadCalibration, Isotonic, Platt
from training.models.diversity import DiversityConfig
from training.models.page_policy import PagePolicy
from training.models.pinnability import FeatureSpec
from training.models.query_features import ON_SEARCH
from training.models.ranker import Candidates as Ranked
from training.models.ranker import Request

RANKER = "pinnability_lr@1"
HEADS = ("engage", "save", "hide")
PLACE = FeatureSpec(user=(), pin=("positives_7d",), interactions=(), position=False)
BY_UTILITY = DiversityConfig(theta=1, topic_cap=0, board_cap=0)


@dataclass(frozen=True)
class ThreeHeads:
    """Saves fall and hides rise with the pin's place in its topic; the feature read is that place."""

    spec: FeatureSpec = PLACE
    heads: tuple[str, ...] = HEADS
    user_space: None = None
    user_dim: int = 0
    content_dim: int = 0
    reads_history: bool = False

    def score_heads(self, request: Request, candidates: Ranked) -> np.ndarray:
        save = 0.4 * candidates.features[:, 0] / PER_TOPIC
        return np.column_stack([save + 0.1, save, 0.2 * (1 - save)]).astype(np.float32)


class Says:
    """A ranking engine whose probabilities are given."""

    def __init__(self, p: np.ndarray, heads: tuple[str, ...] = HEADS, ranker: str = RANKER) -> None:
        self.p, self.heads, self.ranker = p.astype(np.float32), heads, ranker

    async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
        return Heads(self.ranker, self.heads, feed.candidates.pin_ids, self.p)


def feed_of(stack: Stack, *ids: int, **changes: object) -> Feed:
    feed = Feed(Surface.HOMEFEED, stack.release, NOW_MS, 10, user_id=COOK, **changes)  # type: ignore[arg-type]
    feed.candidates = Candidates.of("a", ids, np.linspace(1, 0.5, len(ids)), 0, "popular")
    rows = np.unique(ids)
    feed.pins = PinTable(rows, stack.features.pins(rows), stack.features.vectors(rows, "content@1")[0])
    return feed


def through(feed: Feed, stack: Stack, ranking: object, *stages: object) -> Feed:
    engines = Engines(stack.pool, LocalRetrieval(stack.pool), ranking)  # type: ignore[arg-type]
    for stage in stages or (Rank(1_000), Calibrate(), Value(), Diversify()):
        run(stage.run(feed, engines))  # type: ignore[attr-defined]
    return feed


def calibrator(ranker: str = RANKER, heads: tuple[str, ...] = HEADS) -> Calibrator:
    fitted = tuple(HeadCalibration(head=head, curve=Platt(slope=1, bias=-1)) for head in heads)
    return Calibrator(ranker=ranker, heads=fitted)


def with_policy(stack: Stack, policy: PagePolicy) -> Stack:
    return replace(stack, service=replace(stack.service, policy=lambda release: ServedPolicy(policy)))


def asked(stack: Stack, limit: int = 20) -> FeedAnswer:
    return run(stack.service.homefeed(FeedRequest(user_id=COOK, limit=limit)))


def test_utility_of_calibrated_probabilities_by_hand(stack: Stack) -> None:
    """The second pin has the more saves, the third fewer hides; utility weighs one against the other."""
    stack.release = replace(stack.release, calibrator=calibrator())
    policy = PagePolicy(weights={"save": 1.0, "hide": -2.0}, diversity=BY_UTILITY)
    p = np.array([[0.5, 0.3, 0.3], [0.5, 0.4, 0.2], [0.5, 0.3, 0.05]])
    feed = through(feed_of(stack, 5, 3, 9, policy=policy), stack, Says(p))
    odds = p / (1 - p) * np.exp(-1)  # a bias of -1 on the logit
    made = odds / (1 + odds)
    worth = made[:, 1] - 2 * made[:, 2]
    assert feed.candidates.pin_ids.tolist() == [9, 3, 5] and feed.ordered_by == "ranked"
    np.testing.assert_allclose(feed.candidates.scores, worth[[2, 1, 0]], rtol=1e-5)
    np.testing.assert_allclose(feed.heads.of(np.array([3])), made[1:2], rtol=1e-5)
    assert feed.heads.calibrated and feed.missing == []


def test_one_head_of_engagement_orders_whatever_the_weights(stack: Stack) -> None:
    policy = PagePolicy(weights={"hide": -1.0}, diversity=BY_UTILITY)
    one = Says(np.array([[0.1], [0.3], [0.2]]), ("engage",))
    feed = through(feed_of(stack, 5, 3, 9, policy=policy), stack, one)
    assert feed.candidates.pin_ids.tolist() == [3, 9, 5] and not feed.heads.calibrated


def test_ranking_fails_open_to_the_order_before_it(stack: Stack) -> None:
    class Down:
        async def rank(self, feed: Feed, deadline_ms: float) -> Heads:
            raise TimeoutError

    feed = through(feed_of(stack, 5, 3, 9), stack, Down())
    assert feed.candidates.pin_ids.tolist() == [5, 3, 9] and feed.ordered_by == "merged"
    assert feed.missing == ["rank: deadline"]


def test_scores_that_are_no_numbers_cost_their_pins_alone(stack: Stack) -> None:
    p = np.array([[0.1, 0.2, 0.1], [0.1, np.nan, 0.1], [0.1, 0.3, 0.1], [0.1, np.inf, 0.1]])
    feed = through(feed_of(stack, 5, 3, 9, 7), stack, Says(p))
    assert feed.candidates.pin_ids.tolist() == [9, 5] and feed.missing == ["rank: 2 pins without a score"]
    assert np.isfinite(feed.candidates.scores).all()
    feed = through(feed_of(stack, 5, 3), stack, Says(p[[1, 3]]))
    assert feed.candidates.pin_ids.tolist() == [5, 3] and feed.missing == ["rank: NoScores"]
    feed = through(feed_of(stack, 5, 3, 9), stack, Says(p))
    assert feed.missing == ["rank: ValueError"], "four rows for three pins"


def test_a_calibrator_that_fails_costs_its_effect_alone(stack: Stack) -> None:
    p = np.array([[0.5, 0.1, 0.0], [0.5, 0.4, 0.0]])
    for wrong in (calibrator("pinnability_lr@2"), calibrator(heads=("save", "engage", "hide"))):
        stack.release = replace(stack.release, calibrator=wrong)
        feed = through(feed_of(stack, 5, 3), stack, Says(p))
        assert feed.candidates.pin_ids.tolist() == [3, 5] and not feed.heads.calibrated
        assert feed.missing == ["calibration: CalibrationMismatch"]


def test_calibrated_scores_that_are_no_numbers_are_not_used(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.release = replace(stack.release, calibrator=calibrator())
    monkeypatch.setattr(Calibrator, "calibrate", lambda self, p, features=None: np.full_like(p, np.nan))
    feed = through(feed_of(stack, 5, 3), stack, Says(np.array([[0.5, 0.1, 0.0], [0.5, 0.4, 0.0]])))
    assert feed.candidates.pin_ids.tolist() == [3, 5] and feed.missing == ["calibration: NoScores"]


def test_a_utility_that_fails_leaves_the_order_before_ranking(stack: Stack) -> None:
    feed = feed_of(stack, 5, 3, policy=PagePolicy(weights={"download": 1.0}))
    through(feed, stack, Says(np.array([[0.5, 0.1, 0.0], [0.5, 0.4, 0.0]])))
    assert feed.candidates.pin_ids.tolist() == [5, 3] and feed.missing == ["utility: UtilityError"]


def test_a_calibrator_reads_features_of_user_and_pin(stack: Stack) -> None:
    name = "pin_positives_7d"
    curve = Platt(slope=1, bias=0, weights=(1.0,), mean=(0.0,), scale=(PER_TOPIC,))
    reads = Calibrator(ranker=RANKER, heads=(HeadCalibration(head="engage", curve=curve),), features=(name,))
    stack.release = replace(stack.release, calibrator=reads)
    feed = feed_of(stack, pin_of(1, 0), pin_of(1, 30))
    through(feed, stack, Says(np.array([[0.5], [0.5]]), ("engage",)))
    wanted = 1 / (1 + np.exp(-np.array([PER_TOPIC, PER_TOPIC - 30]) / PER_TOPIC))
    np.testing.assert_allclose(feed.heads.of(feed.candidates.pin_ids)[:, 0], wanted, rtol=1e-5)
    assert name in CALIBRATION_FEATURES and feed.missing == []
    with pytest.raises(ValueError, match="no calibrator can read another"):
        calibration_features(feed, (name, "another"))


def test_a_calibrator_knows_a_search_from_the_home_feed(stack: Stack) -> None:
    curve = Platt(slope=1, bias=0, weights=(1.5,), mean=(0.0,), scale=(1.0,))
    reads = Calibrator(
        ranker=RANKER, heads=(HeadCalibration(head="engage", curve=curve),), features=(ON_SEARCH,)
    )
    stack.release = replace(stack.release, calibrator=reads)
    made = {}
    for surface, query in ((Surface.HOMEFEED, ""), (Surface.SEARCH, "cake")):
        feed = feed_of(stack, 5, 3, query=query)
        feed.surface = surface
        through(feed, stack, Says(np.array([[0.5], [0.5]]), ("engage",)), Rank(1_000), Calibrate())
        assert feed.missing == []
        made[surface] = feed.heads.of(feed.candidates.pin_ids)[:, 0]
    np.testing.assert_allclose(made[Surface.HOMEFEED], 0.5)
    np.testing.assert_allclose(made[Surface.SEARCH], 1 / (1 + np.exp(-1.5)), rtol=1e-6)


def test_caps_hold_for_topics_and_boards(stack: Stack) -> None:
    ids = [pin_of(1, p) for p in range(6)] + [pin_of(2, p) for p in range(6)]
    policy = PagePolicy(weights={"save": 1.0}, diversity=DiversityConfig(theta=1, window=4, topic_cap=2))
    feed = feed_of(stack, *ids, policy=policy)
    p = np.column_stack([np.zeros(12), np.linspace(0.9, 0.1, 12), np.zeros(12)])
    through(feed, stack, Says(p))
    topics = [topic_of(i) for i in feed.candidates.pin_ids.tolist()]
    assert topics[:4] == [1, 1, 2, 2] and all(
        max(Counter(topics[i : i + 4]).values()) <= 2 for i in range(len(topics) - 3)
    )
    feed = feed_of(stack, *ids[:5], policy=PagePolicy(weights={"save": 1.0}, diversity=BY_UTILITY))
    boards = np.array([700, 700, 700, 0, 701])
    feed.candidates = replace(
        feed.candidates,
        anchors=boards,
        kind_codes=KINDS.codes(np.where(boards > 0, "board", "popular")),
    )
    feed.policy = PagePolicy(
        weights={"save": 1.0}, diversity=DiversityConfig(theta=1, topic_cap=0, board_cap=1)
    )
    through(feed, stack, Says(p[:5]))
    assert feed.candidates.anchors.tolist()[:3] == [700, 0, 701], "one pin of a board in a window"


def test_what_is_not_ranked_keeps_its_order_but_for_the_caps(stack: Stack) -> None:
    ids = [pin_of(1, p) for p in range(5)] + [pin_of(2, 0)]
    feed = through(feed_of(stack, *ids), stack, None, Diversify())
    assert feed.candidates.pin_ids.tolist() == [*ids[:3], ids[5], *ids[3:5]]


def test_diversity_that_fails_leaves_the_order_of_utility(stack: Stack) -> None:
    feed = feed_of(stack, 5, 3, 9)
    feed.pins = replace(feed.pins, vectors=np.full_like(feed.pins.vectors, np.nan))
    through(feed, stack, Says(np.array([[0.1], [0.3], [0.2]]), ("engage",)))
    assert feed.candidates.pin_ids.tolist() == [3, 9, 5] and feed.missing == ["diversity: ValueError"]


def test_variety_costs_utility_and_none_is_asked_for_at_theta_1(stack_of: Callable[..., Stack]) -> None:
    means = []
    for theta in (1.0, 0.3):
        stack = stack_of(ranker=ThreeHeads())
        made = DiversityConfig(theta=theta, topic_cap=0, board_cap=0)
        answer = asked(with_policy(stack, PagePolicy(weights={"save": 1.0}, diversity=made)))
        scores = [pin.score for pin in answer.pins]
        assert (scores == sorted(scores, reverse=True)) is (theta == 1.0)
        means.append(np.mean(scores))
    assert means[0] > means[1] + 0.005


def test_an_answer_says_what_ordered_it(stack_of: Callable[..., Stack]) -> None:
    made = calibrator()
    stack = stack_of(ranker=ThreeHeads(), calibrator=made)
    answer = asked(stack)
    assert answer.missing == [] and answer.utility is not None and answer.policy_refused is None
    told = answer.utility
    assert told.weights == {"engage": 0.0, "save": 1.0, "hide": -5.0} and told.calibrated
    assert (told.ranker, told.policy) == (RANKER, stack.release.policy.digest)
    for pin in answer.pins:
        place = (int(pin.pin_id) - 1) % PER_TOPIC
        save = 0.4 * (PER_TOPIC - place) / PER_TOPIC
        raw = np.array([[save + 0.1, save, 0.2 * (1 - save)]], np.float32)
        np.testing.assert_allclose(list(pin.heads.values()), made.calibrate(raw)[0], atol=2e-6)
        assert pin.score == pytest.approx(sum(told.weights[h] * p for h, p in pin.heads.items()), abs=2e-5)


def test_a_release_without_calibration_says_so(stack: Stack) -> None:
    answer = asked(stack)
    assert answer.missing == [] and answer.utility is not None and not answer.utility.calibrated
    assert answer.utility.weights == {"engage": 1.0} and answer.pins[0].heads == {
        "engage": pytest.approx(answer.pins[0].score, abs=1e-6)
    }


def test_unranked_answers_name_no_utility(stack_of: Callable[..., Stack]) -> None:
    answer = asked(stack_of(ranker=None))
    assert answer.utility is None and all(pin.heads == {} for pin in answer.pins)


def test_impressions_carry_what_was_foretold(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of(ranker=ThreeHeads(), calibrator=calibrator())
    answer = asked(stack)
    stack.service.impressions.close()
    logged = [r for r in read(stack.events, "impressions") if r.user_id == COOK]
    assert [(r.heads, r.score) for r in logged] == [(p.heads, pytest.approx(p.score)) for p in answer.pins]
    assert {(r.ranker, r.calibrated, r.policy) for r in logged} == {(RANKER, True, answer.utility.policy)}


def test_scores_that_are_no_numbers_cross_the_wire_as_such(stack: Stack) -> None:
    sent = RankAnswer(release=1, ranker=RANKER, heads=["save", "hide"], probabilities=[[0.5, None], [0.1, 0.2]])

    async def ask(_: object) -> RankAnswer:
        return RankAnswer.model_validate_json(sent.model_dump_json())

    feed = feed_of(stack, 5, 3)
    got = run(RemoteRanking(ask, ask, ask).rank(feed, 1_000))  # type: ignore[arg-type]
    np.testing.assert_allclose(got.p, [[0.5, 0.1], [np.nan, 0.2]])
    assert got.sound.tolist() == [True, False]


def test_equal_probabilities_leave_the_order_before(stack: Stack) -> None:
    """A curve that maps every score to one value leaves the order of the candidates."""
    flat = HeadCalibration(head="engage", curve=Isotonic(x=(0.0, 1.0), y=(0.2, 0.2)))
    stack.release = replace(stack.release, calibrator=Calibrator(ranker=RANKER, heads=(flat,)))
    feed = feed_of(stack, 5, 3, 9, policy=PagePolicy(weights={"save": 1.0}, diversity=BY_UTILITY))
    through(feed, stack, Says(np.array([[0.1], [0.3], [0.2]]), ("engage",)))
    assert feed.candidates.pin_ids.tolist() == [5, 3, 9] and feed.missing == []


def test_the_local_engine_gives_every_head(stack_of: Callable[..., Stack]) -> None:
    stack = stack_of(ranker=ThreeHeads())
    feed = through(feed_of(stack, 1, 2, 3), stack, LocalRanking(stack.pool), Rank(5_000))
    assert feed.heads.names == HEADS and feed.heads.p.shape == (3, 3) and feed.heads.ranker == RANKER
