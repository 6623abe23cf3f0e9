"""Batching, the heart of the serving path.

`queue` decides (pure: rows, order, deadlines, a clock it is given), `padding` joins and splits tensors, `latency`
learns what a batch takes, `lane` connects one model to its runtime, `scheduler` shares the cores between models.
"""
