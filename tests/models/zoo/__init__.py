"""Small models of many kinds and frameworks, as people bring them: each a module with a recipe's worth of functions."""
