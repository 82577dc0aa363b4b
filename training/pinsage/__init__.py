"""How PinSage is learned and measured: pairs, negatives, the trainer, the ladder of rungs.

walks.py         neighbourhoods, degrees and ranks of a catalogue on the pin-board graph
pairs.py         consecutive engagements of one user; the split by time
negatives.py     hard negatives by personalised-PageRank rank
batches.py       what one step trains on, a pure function of (seed, epoch, step)
checkpoint.py    resumable state in safetensors
trainer.py       the loop: warm-up, decay, curriculum
evaluation.py    hit-rate@K and scaled MRR on held-out later pairs
ladder.py        rungs x seeds -> one table
"""
