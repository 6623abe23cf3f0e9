"""Rollouts: a new version gets a larger share of a running service's requests step by step, as long as it does well."""
