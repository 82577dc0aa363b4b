"""How SearchSage learns: pairs of a query and an engaged pin, the loss, the loop, and what it reaches.

| file | holds |
|---|---|
| `pairs.py` | (query, engaged pin) from searches, or titles where nobody searched |
| `batches.py` | what one step sees |
| `frozen_pins.py` | the pins that queries are learned against |
| `encoding.py` | queries through a tower that is being learned |
| `trainer.py` | the readout's start, and the fine-tuning loop |
| `averaging.py` | how far to go from the start, chosen on pairs that nothing was learned from |
| `evaluation.py` | recall of held-out pairs |
"""
