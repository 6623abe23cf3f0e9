"""Two running services side by side, in turns.

The statistics are in `hone.evidence.turns`; what loads a service is in `benchmarks.load`.
"""
