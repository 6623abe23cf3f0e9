"""What is kept of rows to compare others with: columns of tensors, a reference in an artifact, sketches of traffic."""
