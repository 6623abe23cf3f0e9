"""Wire protocols: one file each, from a request's body to tensors and from tensors to an answer."""
