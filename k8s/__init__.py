"""From a stored model to pods: the image, the manifests with measured numbers, the checks before a deployment."""
