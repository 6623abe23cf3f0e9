"""From answers to a verdict: bounds of what a variant loses, the claims of a budget, which of several is taken."""
