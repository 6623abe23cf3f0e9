"""What is kept of rows to compare others with: columns of tensors, a reference beside a model, sketches of its traffic."""
