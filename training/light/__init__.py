"""Training of the light ranker: requests with what every source brought, replayed or as the funnel logged them.

| file | holds |
|---|---|
| `replay.py` | what the released sources would have fetched for users at a midnight |
| `rule_sources.py` | the same for sources that are rules: popular pins, boards and topics followed |
| `logged.py` | what the funnel logged of a sample of its requests |
| `rows.py` | requests as the ranker's rows, each as of its time |
| `measure.py` | what each order keeps of what users then acted on |
"""
