"""The statistics that verdicts use: pure functions, no files and no models."""
