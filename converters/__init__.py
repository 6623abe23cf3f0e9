"""Converters: from a trained model and a recipe to proven variants."""
