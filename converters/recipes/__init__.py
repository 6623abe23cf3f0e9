"""Recipes for people and editors: a first one for a model file, the reference, and the JSON Schema.

What a recipe is and how it is read is in `hone.recipe`; what is made of it in `converters/run/`.
"""
