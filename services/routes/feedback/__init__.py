"""Feedback over HTTP: labels and figures that come after an answer, under a model's paths."""
