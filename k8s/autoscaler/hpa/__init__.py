"""The HorizontalPodAutoscaler's own arithmetic, release by release: from samples of pods to a number of replicas.

Pure functions and what they remember; where samples come from is not known here.
"""
