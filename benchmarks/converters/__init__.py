"""`python -m benchmarks.converters`: the examples' variants beside other converters, same rows, turn by turn.

The other converters run in environments of their own: `benchmarks/peers`.
"""
