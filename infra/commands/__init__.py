"""The commands of `corkboard`, by what they act on; `infra/cli.py` lists them.

| file | commands |
|---|---|
| `tables.py` | ingest, forget, `events`, `datasets` |
| `learning.py` | train, tune |
| `releasing.py` | release, promote, rollback, history, diff, gc |
| `measuring.py` | evaluate, calibration, replay |
| `running.py` | up, down, status, demo |
| `state.py` | what they share |
"""
