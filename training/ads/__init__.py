"""How ads models learn, and what they are measured beside.

examples.py     the rows of the `related_ads` surface with labels, as arrays
trainer.py      one fit: thinned negatives, towers, calibration on later days
baselines.py    one model on mixed data, a model a source, logistic regression
evaluation.py   AUC, log loss and calibration by source, head and day
tuning.py       transforms and sizes chosen under a budget
"""
