"""Batching, the heart of the serving path.

`queue` decides (pure: rows, order, deadlines, a clock it is given), `padding` joins and splits tensors, `latency`
learns what a batch takes, `running` runs one and hands out what became of it, `scheduler` shares the cores between
models, and `lane` leads one model's requests through all of them.
"""
