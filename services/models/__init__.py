"""A stored artifact on its way into a worker: loading, calibration, and which models are desired."""
