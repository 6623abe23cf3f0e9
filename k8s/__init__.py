"""Kubernetes: the YAML that a platform engineer reads, and the tools that render, pack and check it."""
