"""Manifests for clusters with KServe: `hone k8s render --kserve`."""
