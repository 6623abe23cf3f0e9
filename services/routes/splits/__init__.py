"""Splits of a model's requests in the service: paths that deal them out, setting and ending them, verdicts."""
