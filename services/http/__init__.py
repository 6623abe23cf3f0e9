"""HTTP as bytes: connections, heads, bodies and answers with their limits, statuses, ports.

What a path does is in `routes`, what a body means in `protocols`.
"""
