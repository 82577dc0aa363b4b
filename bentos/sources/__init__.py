"""Candidate sources: each a function `Feed -> Candidates` that blocks and is run under a deadline.

| file | brings |
|---|---|
| `pinnersage.py` | pins near medoids of what the user likes, long-term and today |
| `pinnerformer.py` | pins near the vector that foretells the user's next weeks |
| `dcm.py` | pins near each of the user's implicit interests, by weight |
| `conditional.py` | pins of topics the user follows, nearest to the user under each |
| `two_tower.py` | pins whose product with the user is largest |
| `pixie.py` | pins on boards with the user's, by random walks |
| `followed_boards.py` | newest pins of boards the user follows |
| `followed_topics.py` | popular pins of topics the user follows |
| `popular_by_topic.py` | popular pins, of the user's own topics first: the answer to a cold start |
| `similar_pins.py` | related pins: those near one pin, or near a board's |
| `searchsage.py` | search: pins near the query |
| `lexical.py` | search: pins that say its words |
| `saved_together.py` | related pins: those saved with one pin, or with a board's |
"""
