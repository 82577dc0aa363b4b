"""How multi-interest models and the two-tower are learned and measured.

engagements.py  user-days: histories at midnight, the day's first engagements, topics that brought them
batches.py      what one step trains on, a pure function of (seed, epoch, step)
learners.py     one step's loss: implicit interests, topic conditions, two towers
trainer.py      the loop: streaming logQ, warm-up, decay, resumable
evaluation.py   HR@K with the best of a user's embeddings, by number of interests
tables.py       the published comparisons, every row over several seeds
"""
