"""HTTP as bytes: connections, bodies and answers with their limits, statuses, paths, ports.

What a path does is in `routes`, what a body means in `protocols`.
"""
