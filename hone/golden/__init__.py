"""Golden rows: rows with the proof's answers and a tolerance, in the artifact; every host that loads it compares.

What is here knows arrays and files. What runs a model on them lies with its runtime: in serving, `hone doctor` and
`hone prove`.
"""
