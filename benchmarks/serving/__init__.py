"""`python -m benchmarks.serving`: Hone beside other servers, loaded in turn on the same cores.

The other servers run in environments of their own: `benchmarks/peers`.
"""
