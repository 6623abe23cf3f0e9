"""Two running services side by side: `turns` loads one after the other, `at_once` both, `verdict` says what that means.

The statistics are in `hone.evidence.turns`; what loads a service is in `benchmarks.load`.
"""
