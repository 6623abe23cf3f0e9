"""Commands on what Hone stands on: the model store, and this host."""
