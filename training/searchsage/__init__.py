"""How SearchSage learns: pairs of a query and an engaged pin, the loss, the loop, and what it reaches.

| file | holds |
|---|---|
| `pairs.py` | (query, engaged pin) from searches, or titles where nobody searched |
| `batches.py` | what one step sees |
| `trainer.py` | the readout's start, and the fine-tuning loop |
| `evaluation.py` | recall of held-out pairs |
"""
