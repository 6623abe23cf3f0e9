"""`variants: auto`: which presets are worth making for a model, on a host, under a budget, and why the others aren't.

The rules are a table in `rules.py`; `trials.py` measures roughly what they chose. Who wins is the proof's to say.
"""
