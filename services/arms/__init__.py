"""Versions that share a model's requests: which arm a request goes to, what each has done, and what that proves."""
