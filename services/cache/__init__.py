"""Predictions that were made before, in memory and in Redis."""
