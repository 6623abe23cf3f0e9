"""Which stored models answer alike, and which have like weights.

One pair, layer by layer, is in `hone.describe`.
"""
