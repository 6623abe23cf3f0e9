"""`python -m benchmarks.auto`: what `variants: auto` finds of each example, and how long that takes, beside the recipe
that was written by hand."""
