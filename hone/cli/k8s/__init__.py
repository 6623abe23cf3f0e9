"""Commands that bring a model to a cluster: a service of one's own, image, manifests, checks."""
