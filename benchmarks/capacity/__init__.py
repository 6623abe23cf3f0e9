"""The search for the highest arrival rate that a service answers within its limits.

What a capacity is, and where it is kept, stands in `hone.capacity`.
"""
