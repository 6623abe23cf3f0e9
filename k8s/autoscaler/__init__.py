"""The HorizontalPodAutoscaler's arithmetic and a simulation of it: pods, load, metrics, and a search of its settings.

Nothing here asks a cluster: manifests are written in `k8s/tools`, the real controller is run by the tests.
"""
