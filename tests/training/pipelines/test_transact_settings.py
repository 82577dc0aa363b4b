"""What the home's `transact.yaml` says of the ranker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.feature_repo.conftest import write_lake
from training.context import TrainingContext
from training.models.settings_file import Unreadable
from training.pipelines.train import train
from training.pipelines.transact_settings import SETTINGS, TransActPipeline, settings_of
from validation.tables import DEFAULT_VOCABULARY, Polarity


def said(tmp_path: Path, text: str) -> TransActPipeline:
    (tmp_path / SETTINGS).write_text(text)
    return settings_of(context(tmp_path), DEFAULT_VOCABULARY)


def context(tmp_path: Path) -> TrainingContext:
    folders = [tmp_path / name for name in ("lake", "features", "training_sets")]
    return TrainingContext(*folders, str(tmp_path), "sqlite://", tmp_path / "mlflow", "")


def test_a_home_that_says_nothing_learns_the_recipe(tmp_path: Path) -> None:
    assert settings_of(context(tmp_path), DEFAULT_VOCABULARY) == TransActPipeline()
    assert said(tmp_path, "max_reads: 5\nversion: v1") == TransActPipeline(max_reads=5)
    assert said(tmp_path, "teacher: null") == TransActPipeline(teacher=None)


def test_v2_selects_and_foretells_the_next_positive_action(tmp_path: Path) -> None:
    found = said(tmp_path, "version: v2\nlifelong: {length: 500}\ntraining: {learning_rate: 0.5}\n")
    plain = TransActPipeline.v2(tuple(DEFAULT_VOCABULARY.codes(Polarity.POSITIVE)))
    assert plain.lifelong is not None and found.lifelong is not None and found.next_action == plain.next_action
    assert found.lifelong == plain.lifelong.model_copy(update={"length": 500}), "groups are merged"
    assert found.training == plain.training.model_copy(update={"learning_rate": 0.5})
    assert found.sequence == plain.sequence and found.sequence.causal
    assert found.sequence.length == found.lifelong.tokens == 32


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("version: v3", "version is 'v3'; TransAct's are v1 and v2"),
        ("- v2", "holds no settings"),
        ("version: v2\nlifelong: {length: 20000}", "the feature store keeps 2000 actions"),
        ("version: v2\nlifelong: {recent: 20}", "a lifelong selection has 40 tokens"),
        ("version: v2\nsequence: {causal: false}", "the next-action loss needs a causal encoder"),
        ("reads: 3", "reads: Extra inputs"),
        ("label_weights: {buy: {base: 2}}", "label weights name buy; heads are closeup"),
        ("label_weights: {save: {weights: {buy: 2}}}", "label weights name buy; heads are closeup"),
        ("label_weights: {save: {weights: {hide: -2}}}", "weights {'hide': -2.0} are negative"),
        (
            "version: v2\nnext_action: {positives: [1, 99]}",
            "positives: no action has code 99; there are",
        ),
        ("training: {epochs: 3}", "training.epochs: max_reads and max_epochs decide it; leave it out"),
        ("training: {seed: 3}", "training.seed: it is the run's; leave it out"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(Unreadable, match=rf"{SETTINGS}: .*{wrong}".replace(".", "[\\s\\S]")):
        said(tmp_path, text)


def test_settings_that_do_not_fit_each_other_are_told_in_our_words(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=f"{SETTINGS}: a lifelong selection has 40 tokens"):
        said(tmp_path, "version: v2\nlifelong: {recent: 20}")


def test_a_file_of_comments_alone_says_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, "# version: v2") == TransActPipeline()


def test_a_run_tells_of_a_file_at_fault_before_it_begins(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    write_lake(ctx.lake, {})
    (tmp_path / SETTINGS).write_text("version: v3")
    with pytest.raises(Unreadable, match="version is 'v3'"):
        train(ctx, ["transact"])
    assert not ctx.features.exists()
