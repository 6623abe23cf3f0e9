"""The autoscaler: its arithmetic against the cases of Kubernetes, the simulation against the real controller."""
