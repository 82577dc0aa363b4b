"""Networks that take seconds, for tests of whole runs."""

from __future__ import annotations

from training.models.transact import SequenceConfig
from training.pipelines.transact_settings import TransActPipeline

SMALL_TRANSACT = TransActPipeline(
    sequence=SequenceConfig(length=16, action_dim=8, pin_dim=8, layers=1, ffn=16, k=2, mask_hours=0),
    deep=(32,),
    max_reads=20_000,
    min_positives=50,
)
