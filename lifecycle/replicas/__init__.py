"""Replicas of a model's service on this host behind nginx, without containers: what `hone up` keeps running."""
