"""All benchmarks on one page: runs those that have no record yet, and puts together what their records say.

What measures is in the other folders; a page of one load test or one capacity is in `benchmarks.reports`.
"""
