"""Who may do what, how often: keys, tokens, scopes, rates, and which addresses need them."""
