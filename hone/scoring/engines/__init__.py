"""Scoring on more than one machine: a framework deals ranges of rows out, workers write parts where all see them.

What a worker does is in `work.py`; a framework has a file here, which imports it when it is used.
"""
