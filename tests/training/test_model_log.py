"""What is said of a model is pinned and can be read."""

from __future__ import annotations

from datetime import UTC, datetime

from training.model_log import FLAVOURS, Dataset, ModelLog, columns_signature, model_card, pinned


def test_requirements_carry_no_local_version():
    assert all("+" not in r and "==" in r for r in pinned("torch", "numpy"))


def test_the_card_reads_as_markdown():
    log = ModelLog(
        name="pinnability_logistic",
        flavour=FLAVOURS / "pinnability.py",
        description="A ranker for a test.",
        params={"l2": 0.5},
        metrics={"auc": 0.75},
        interval=(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        datasets=(Dataset("training_set", "somewhere", "feedc0de"),),
        signature=columns_signature({"weekend": "float"}),
        requirements=pinned("numpy"),
        inputs="inputs-1",
        notes="Known limits.",
    )
    card = model_card(log)
    assert card.startswith("# pinnability_logistic\n\nA ranker for a test.\n")
    assert "| auc | 0.75 |" in card and "2026-01-01 00:00 to 2026-02-01 00:00 UTC" in card
    assert "- training_set: digest `feedc0de`" in card and "## Limits\n\nKnown limits." in card
