"""`python -m benchmarks.overload`: a service at several times its capacity, and what its callers and probes see of it.

`model` makes a model that is slow on purpose, `cores` keeps the service and its load apart, `sending` loads, `beside`
are the processes that ask for readiness and that only sleep meanwhile, `judge` compares what came with the aims.
"""
