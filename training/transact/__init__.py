"""Training the TransAct ranker.

examples.py  rows of a training set beside the actions before each of them, as batches
trainer.py   the loop: weighted multi-task loss, next-action loss, resumable at any step
"""
