"""The V2 protocol over gRPC; its messages mean the tensors that HTTP means."""
