"""Predictions that were made before, in memory and in Redis; and the way to Redis, which rate limits take too."""
