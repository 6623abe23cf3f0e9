"""Several stored models as one graph: what a recipe's `source.ensemble` stands for."""
