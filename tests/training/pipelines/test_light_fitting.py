"""A planted funnel: sources see little, users act on topics and quality, and most of what is fetched is never
shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.evaluation.funnel_recall import funnel_recall
from training.models.light_ranking import LightSpec
from training.models.source_lists import Fetched
from training.pipelines.fitting import NothingToLearn
from training.pipelines.light_fitting import LightConfig, LightRows, fit_light, row_weights

SPEC = LightSpec(sources=("pixie", "popular"), pin=("positives_7d",), user=())
CONFIG = LightConfig(rounds=40, depth=4, threads=1)
FETCHED, SHOWN, RATE = 150, 25, 0.3


def planted(requests: int, seed: int) -> tuple[LightRows, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a sampled log, their requests, the scores of their sources, and what users would act on if shown.

    Sources know a third of what moves users. The policy shows the best by source with noise, so what is
    engaged is seen of few; of the rest RATE is logged.
    """
    rng = np.random.default_rng(seed)
    n = requests * FETCHED
    request = np.repeat(np.arange(requests), FETCHED)
    topic, quality, hint = (rng.random(n) < 0.3).astype(np.float32), rng.poisson(4, n), rng.normal(size=n)
    appeal = 1.6 * topic + 0.25 * quality + 0.5 * hint
    source = hint + rng.normal(size=n) * 0.3
    rank = np.empty(n)
    for r in range(requests):
        rows = slice(r * FETCHED, (r + 1) * FETCHED)
        rank[rows] = np.argsort(np.argsort(-(source[rows] + rng.normal(size=FETCHED) * 2)))
    impressed = rank < SHOWN
    would = rng.random(n) < 1 / (1 + np.exp(4.5 - appeal))
    engaged = impressed & would
    first = rng.random(n) < 0.5
    scores = np.column_stack([np.where(first, source, np.nan), np.where(first, np.nan, source)]).astype(
        np.float32
    )
    nothing = np.zeros(n, np.float32)
    fetched = Fetched(np.arange(n) + 1, scores, scores * 0, nothing + 1, nothing, nothing)
    pins = np.zeros((n, len(PIN_SCALARS)), np.float32)
    pins[:, PIN_SCALARS.index("positives_7d")] = quality
    features = SPEC.assemble(
        fetched, pins, np.ones(n, np.int64), topic, nothing, np.zeros(len(USER_SCALARS), np.float32), 10**9
    )
    logged = impressed | (rng.random(n) < RATE)
    chance = np.where(impressed, 1.0, RATE).astype(np.float32)
    rows = LightRows(features[logged], engaged[logged], impressed[logged], chance[logged])
    return rows, request[logged], source[logged], would[logged]


def test_it_keeps_more_of_what_is_engaged_than_the_sources_order():
    ranker = fit_light(planted(250, 0)[0], SPEC, CONFIG)
    rows, request, source, would = planted(120, 1)
    orders = {"light": ranker.score(rows.features), "source": source}
    got = funnel_recall(request, would, orders, [30], logged=rows.logged)
    gain = got.gain("light", "source", 30)
    assert gain.mean - gain.error > 0.05
    # and even of what was really shown, which the sources chose by themselves
    shown = funnel_recall(request, rows.engaged, orders, [30], logged=rows.logged)
    assert shown.gain("light", "source", 30).mean > 0


def test_what_was_cut_teaches_what_is_cut():
    rows = planted(250, 0)[0]
    shares = {"shown only": 0.0, "cut too": 1.0}
    rankers = {
        name: fit_light(rows, SPEC, CONFIG.model_copy(update={"unimpressed_share": share}))
        for name, share in shares.items()
    }
    held, request, _, _ = planted(120, 1)
    orders = {name: ranker.score(held.features) for name, ranker in rankers.items()}
    got = funnel_recall(request, held.engaged, orders, [30], logged=held.logged)
    assert got.gain("cut too", "shown only", 30).mean > 0.02


def test_fitting_is_repeatable():
    rows = planted(40, 0)[0]
    one, two = (fit_light(rows, SPEC, CONFIG, seed=3).score(rows.features) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_weights_do_not_depend_on_how_many_were_logged():
    rows = planted(60, 0)[0]
    in_vain = (rows.impressed & ~rows.engaged).sum()
    weight = row_weights(rows, 0.5)
    assert weight[rows.impressed].tolist() == [1.0] * int(rows.impressed.sum())
    assert weight[~rows.impressed].sum() == pytest.approx(0.5 * in_vain, rel=1e-4)
    halved = np.flatnonzero(rows.impressed | (np.arange(len(rows)) % 2 == 0))
    few = LightRows(*(getattr(rows, f)[halved] for f in ("features", "engaged", "impressed", "logged")))
    assert row_weights(few, 0.5)[~few.impressed].sum() == pytest.approx(0.5 * in_vain, rel=1e-4)
    uneven = replace(rows, logged=np.where(np.arange(len(rows)) % 2, rows.logged, rows.logged / 2))
    cut = np.flatnonzero(~rows.impressed)
    odd, even = cut[cut % 2 == 1][0], cut[cut % 2 == 0][0]
    made = row_weights(uneven, 0.5)
    assert made[even] == pytest.approx(2 * made[odd], rel=1e-5)


def test_no_cut_rows_and_no_weight_for_them_are_the_same_fit():
    rows = planted(40, 0)[0]
    shown = LightRows(
        *(getattr(rows, f)[rows.impressed] for f in ("features", "engaged", "impressed", "logged"))
    )
    without = fit_light(rows, SPEC, CONFIG.model_copy(update={"unimpressed_share": 0.0}))
    np.testing.assert_array_equal(
        without.score(rows.features), fit_light(shown, SPEC, CONFIG).score(rows.features)
    )


@pytest.mark.parametrize("engaged", [False, True])
def test_one_outcome_teaches_nothing(engaged: bool):
    rows = planted(5, 0)[0]
    only = replace(rows, engaged=rows.impressed & engaged)
    with pytest.raises(NothingToLearn, match="acted on and pins shown in vain"):
        fit_light(only, SPEC, CONFIG)
