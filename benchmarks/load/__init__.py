"""The load generator: Locust's users, what they send, how they send it, and one run of it.

A scenario and a record are nouns of the room (`scenarios.py`, `records.py`); how they are drawn is in `reports`.
"""
