"""Rankers on planted rows: the law is found, positions are forgotten, and what cannot be measured is said."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn import metrics as sk

from feature_repo.sequence import SequenceLog
from tests.training.evaluation.planted_rows import TRUE, planted
from training.data.splits import Interval, time_split
from training.data.training_set import Block, TrainingSet
from training.evaluation.hit_at_k import hit_at_k
from training.evaluation.ranking import RankingData, RankingError, Scores, auc_error, evaluate
from training.evaluation.ranking_models import Gbdt, Logistic, TransAct, models
from training.models.interactions import INTERACTION_FEATURES
from training.models.transact import SequenceConfig
from training.models.utility import UtilityError, UtilityWeights
from training.pipelines.fitting import GbdtConfig
from training.transact.examples import Known, PinTable
from training.transact.fitting import TransActRecipe

FEW_TREES = GbdtConfig(rounds=15, depth=3, learning_rate=0.3, threads=1)


@dataclass(frozen=True)
class Truth:
    """Knows the law; its scores are far too high, in the right order."""

    seeded: bool = False

    def scores(self, data: RankingData, seed: int) -> Scores:
        return Scores(*(self._of(data, block) for block in (data.validation, data.test)))

    def _of(self, data: RankingData, block) -> np.ndarray:
        x = block.interactions[:, INTERACTION_FEATURES.index(TRUE)].astype(np.float64)
        line = {"save": 1.5 * x + 1, "hide": -1.5 * x + 1}
        return np.column_stack([1 / (1 + np.exp(-line[head])) for head in data.heads]).astype(np.float32)


@dataclass(frozen=True)
class Bent(Truth):
    """Says the same in other numbers."""

    def scores(self, data: RankingData, seed: int) -> Scores:
        made = super().scores(data, seed)
        return Scores(made.validation / 2, made.test / 2)


@dataclass(frozen=True)
class Blind(Truth):
    """Guesses."""

    seeded: bool = True

    def scores(self, data: RankingData, seed: int) -> Scores:
        rng, made = np.random.default_rng(seed), super().scores(data, seed)
        return Scores(*(rng.random(part.shape, np.float32) for part in (made.validation, made.test)))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return planted(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def data(rows: TrainingSet) -> RankingData:
    return RankingData.of(rows, time_split(rows.info.start, rows.info.end))[0]


def test_heads_that_nobody_uses_are_left_out_and_named(rows: TrainingSet):
    data, left_out = RankingData.of(rows, time_split(rows.info.start, rows.info.end))
    assert data.heads == ("save", "hide")
    assert left_out == {"report": "0 in training, 0 in validation, 0 in test, 10 positives are needed"}
    with pytest.raises(RankingError, match=r"no action has enough positives: save: .* in validation"):
        RankingData.of(rows, time_split(rows.info.start, rows.info.end), min_positives=2000)


def test_a_part_without_rows_is_named(rows: TrainingSet):
    split = time_split(rows.info.start, rows.info.end)
    empty = Interval(split.test.end, split.test.end)
    with pytest.raises(RankingError, match="no test rows"):
        RankingData.of(rows, replace(split, test=empty))


def test_every_number_is_what_its_definition_says(data: RankingData):
    weights = UtilityWeights(weights={"save": 1.0, "hide": -2.0})
    report = evaluate(data, {"truth": Truth()}, seeds=(0, 1), weights=weights)
    (row,) = report.rows  # without randomness it runs once
    scores, labels = Truth().scores(data, 0).test, data.labels(data.test)
    for place, head in enumerate(row.heads):
        label, raw = labels[:, place], scores[:, place]
        assert head.positives == label.sum()
        assert head.auc == pytest.approx(sk.roc_auc_score(label, raw))
        assert head.pr_auc == pytest.approx(sk.average_precision_score(label, raw))
        assert head.ece > 0.2 and head.ece_calibrated < 0.06
        assert abs(head.total_error) < 0.25
    # calibration keeps each head's order, so hides by the top of the utility lie below those of any order
    save, hide = (spread.mean for spread in row.hits)
    blind = hit_at_k(
        data.test.keys["user_id"], data.test.keys["request_id"], np.zeros(len(labels)), labels, 3
    ).hit()
    assert save > blind[0] * 1.3 and hide < blind[1] * 0.6


def test_rankers_find_the_law(data: RankingData):
    report = evaluate(data, {"truth": Truth(), "lr": Logistic(), "gbdt": Gbdt(config=FEW_TREES)})
    for head in data.heads:
        for model in ("lr", "gbdt"):
            assert (
                report.mean(model, head, "auc_same_place") > report.mean("truth", head, "auc_same_place") - 0.05
            )


def test_rankers_are_compared_user_by_user(data: RankingData):
    found = {"truth": Truth(), "bent": Bent(), "blind": Blind()}
    report = evaluate(data, found, seeds=(0, 1), against="truth")
    assert list(report.changes) == ["bent", "blind"] and report.changes["bent"][0].mean == 0.0
    for place, head in enumerate(data.heads):
        change = report.changes["blind"][place]
        gap = report.mean("blind", head, "auc") - report.mean("truth", head, "auc")
        assert change.mean == pytest.approx(gap) and change.mean < -change.error < 0 < change.seeds
    assert "change: AUC less that of truth" in report.table()
    assert json.loads(report.to_json())["changes"]["blind"][0]["mean"] == report.changes["blind"][0].mean
    with pytest.raises(RankingError, match="--against trees: add it to --models; there are truth"):
        evaluate(data, found, against="trees")


def test_telling_positions_in_training_takes_their_bias_out(data: RankingData):
    """The policy ordered pages by what moves nobody: a ranker that is not told positions believes in it."""
    report = evaluate(data, {"told": Logistic(), "blind": Logistic(position=False)})
    told, blind = (report.mean(model, "save", "auc_same_place") for model in ("told", "blind"))
    assert told > blind + 0.01
    # on the policy's own pages the bait pays, which is why AUC alone would pick the wrong one
    assert report.mean("blind", "save", "auc") > report.mean("told", "save", "auc")


def test_scores_do_not_know_the_test_positions(data: RankingData):
    made = Logistic().scores(data, 0).test
    moved = RankingData(data.rows, data.split, data.heads)
    for part in ("train", "validation", "test"):
        block = getattr(data, part)
        shuffled = replace(block, position=block.position[::-1]) if part != "train" else block
        moved.__dict__[part] = shuffled
    np.testing.assert_array_equal(Logistic().scores(moved, 0).test, made)


def test_models_without_positions_are_there_only_where_positions_are(data: RankingData, tmp_path):
    assert set(models(data)) == {
        "pinnability_logistic",
        "pinnability_gbdt",
        "logistic_no_position",
        "gbdt_no_position",
    }
    rows = planted(tmp_path / "flat", days=4, requests=60, positions=False)
    flat, _ = RankingData.of(rows, time_split(rows.info.start, rows.info.end))
    assert set(models(flat)) == {"pinnability_logistic", "pinnability_gbdt"}


def test_what_the_query_tells_is_found_and_calibrated_by_surface(data: RankingData):
    """Half of the rows are results of a search, saved where their words match, and more often in all."""

    def searched(block: Block, seed: int) -> Block:
        rng = np.random.default_rng(seed)
        query = np.zeros((len(block), 2), np.float32)
        query[:, 1] = rng.random(len(block)) < 0.5
        query[:, 0] = query[:, 1] * rng.random(len(block))
        chance = 0.15 + query[:, 1] * (0.15 + 0.5 * query[:, 0])
        labels = block.labels.copy()
        labels[:, 0] = rng.random(len(block)) < chance
        keys = block.keys.assign(surface=np.where(query[:, 1] > 0, "search", "homefeed"))
        return replace(block, keys=keys, query=query, labels=labels, label=labels[:, 0])

    made = RankingData(copy(data.rows), data.split, ("save",))
    made.rows.__dict__["info"] = data.rows.info.model_copy(update={"has_query": True})
    for seed, part in enumerate(("train", "validation", "test")):
        made.__dict__[part] = searched(getattr(data, part), seed)
    found = models(made)
    assert set(found) >= {"pinnability_gbdt", "gbdt_no_query"}
    report = evaluate(made, {"told": Gbdt(config=FEW_TREES), "blind": Gbdt(query=False, config=FEW_TREES)})
    told, blind = (report.mean(model, "save", "auc") for model in ("told", "blind"))
    assert told > blind + 0.1
    # the blind trees' scores say nothing of the surface, the calibrator does
    (blind_rows,) = [r.calibration for r in report.rows if r.model == "blind"]
    for surface in ("search", "homefeed"):
        (row,) = [r for r in blind_rows if r.slice == surface]
        assert abs(row.after.total_error) < 0.3 * abs(row.before.total_error), surface


def test_seeds_are_kept_apart_and_averaged(data: RankingData):
    report = evaluate(data, {"gbdt": Gbdt(config=FEW_TREES), "lr": Logistic()}, seeds=(3, 4))
    assert [(r.model, r.seed) for r in report.rows] == [("gbdt", 3), ("gbdt", 4), ("lr", 3)]
    aucs = [r.heads[0].auc for r in report.rows[:2]]
    assert aucs[0] != aucs[1] and report.mean("gbdt", "save", "auc") == pytest.approx(np.mean(aucs))
    line = next(line for line in report.table().splitlines() if line.strip().startswith("gbdt"))
    assert line.split()[3] == f"{np.std(aucs, ddof=1):.4f}"
    with pytest.raises(KeyError, match="gbdt, lr"):
        report.mean("mlp", "save", "auc")


def test_the_report_reads_and_parses(data: RankingData):
    report = evaluate(data, {"truth": Truth()}, skipped={"report": "too few"})
    table = report.table()
    assert "left out: report: too few" in table and "HIT@3" in table
    line = next(line for line in table.splitlines() if line.strip().startswith("truth"))
    assert f"{report.mean('truth', 'save', 'auc'):.4f}" in line
    parsed = json.loads(report.to_json())
    assert parsed["rows"][0]["heads"][0]["auc"] == report.rows[0].heads[0].auc
    diagram = parsed["rows"][0]["calibration"][0]["after"]["diagram"]
    assert diagram["observed"] == report.rows[0].calibration[0].after.diagram.observed.tolist()
    assert {(c["head"], c["slice"]) for c in parsed["rows"][0]["calibration"]} == {
        (head, part) for head in ("save", "hide") for part in ("all", "new users")
    }


def test_weights_that_weigh_no_head_are_refused(data: RankingData):
    with pytest.raises(UtilityError, match="weighs none of them but report"):
        evaluate(data, {"truth": Truth()}, weights=UtilityWeights(weights={"report": -1.0}))


def test_an_aucs_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held, expected = 0, 0.7602  # of normals one apart: Phi(1 / sqrt 2)
    for _ in range(300):
        positive, negative = rng.normal(1, 1, 80), rng.normal(0, 1, 120)
        y = np.repeat([1, 0], [80, 120])
        auc = sk.roc_auc_score(y, np.concatenate([positive, negative]))
        held += abs(auc - expected) <= auc_error(auc, 80, 120)
    assert 0.91 <= held / 300 <= 0.98
    assert np.isnan(auc_error(0.5, 0, 10))


def test_transact_is_fitted_on_the_same_rows_under_every_head(data: RankingData):
    rng = np.random.default_rng(0)
    content = rng.normal(size=(8, 4))
    pins = PinTable(np.arange(1, 9), (content / np.linalg.norm(content, axis=1)[:, None]).astype(np.float32))
    reads: list[int] = []

    def known() -> Known:
        reads.append(1)
        return Known(SequenceLog.from_columns([]), pins)

    assert "transact" in models(data, known) and "transact" not in models(data) and not reads
    recipe = TransActRecipe(
        sequence=SequenceConfig(length=4, action_dim=4, pin_dim=4, layers=1, ffn=8, k=1, mask_hours=0),
        deep=(16,),
        max_reads=2_000,
        min_positives=10,
    )
    scores = TransAct(known, recipe=recipe).scores(data, seed=0)
    assert scores.validation.shape == (len(data.validation), 2) and scores.test.shape == (len(data.test), 2)
    labels = data.labels(data.test)
    for head in range(2):
        assert sk.roc_auc_score(labels[:, head], scores.test[:, head]) > 0.7
    # thinned rows are undone before the curve: raw probabilities are of the whole population
    assert abs(scores.test[:, 1].sum() / labels[:, 1].sum() - 1) < 0.5
