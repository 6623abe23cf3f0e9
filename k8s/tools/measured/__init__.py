"""Measured numbers in manifests: patches of a kustomize folder."""
