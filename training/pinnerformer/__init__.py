"""How PinnerFormer is learned and measured.

timelines.py    users' whole timelines as CSR arrays; which actions are labels
batches.py      what one step trains on, a pure function of (seed, epoch, step)
trainer.py      the loop: mixed negatives, logQ, warm-up and decay
retriever.py    a trained network with its catalogue: `recommend(users, k)`
evaluation.py   Recall@10, interest entropy@50, P90 coverage@10
staleness.py    vectors made once, daily or in real time
ablations.py    objectives, negatives x logQ, window, features left out: one table over seeds
"""
