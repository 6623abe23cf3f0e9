"""Registries of images, by the distribution specification of OCI: what is asked of them, and signatures put there."""
