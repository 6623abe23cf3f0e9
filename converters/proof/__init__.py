"""The proof: variants measured beside their source, in processes of their own; metrics, sanity, and the choice.

The statistics behind a verdict are in `hone.evidence`.
"""
