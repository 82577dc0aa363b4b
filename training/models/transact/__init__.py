"""TransAct: the realtime-sequence multi-task ranker (KDD 2023, arXiv 2306.00248), and V2 (2506.02267).

config.py       the ranker's shape: fusion, output columns, heads with their label weights, V2
inputs.py       what it reads: one row a (request, candidate)
encoder.py      one PostNorm transformer layer
sequence.py     the sequence module: tokens, hidden hours, output columns
dcnv2.py        full-rank cross layers
network.py      everything together, a head an action; save and load
loss.py         label weights as a matrix, with a weight for rows without action
next_action.py  the next-action loss of V2
lifelong.py     byte-wide histories and their nearest tokens, V2
shared.py       one user's part of the encoder, made once for all candidates: the exact algebra
folding.py      the encoder's weights as serving multiplies them
float32.py      serving in float32: tiles.py, the whole encoder a candidate, on lanes.py, registers for numba
bfloat16.py     serving in bfloat16: torch's products, and kernels.py between them
serving.py      one user and up to a thousand candidates; bfloat16 behind a check
lifelong_serving.py  the same with a selection of a lifelong history, V2
"""

from training.models.transact.config import (
    Fusion,
    Head,
    Lifelong,
    NextAction,
    Output,
    SequenceConfig,
    TransActConfig,
)
from training.models.transact.inputs import Rows
from training.models.transact.network import TransAct

__all__ = [
    "Fusion",
    "Head",
    "Lifelong",
    "NextAction",
    "Output",
    "Rows",
    "SequenceConfig",
    "TransAct",
    "TransActConfig",
]
