"""A simulation of pods under load and of their autoscaler, and a search of its settings.

Nothing here asks a cluster or writes manifests: that is `k8s/tools`; the real controller is run by the tests.
"""
