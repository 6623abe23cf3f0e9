"""Load tests and comparisons: the load generator, the search for capacity, other servers and converters, reports.

What is measured is served and converted by the rooms below; nothing here decides how they work.
"""
