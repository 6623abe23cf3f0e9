"""Benchmarks: load scenarios, the load generator and its reports."""
