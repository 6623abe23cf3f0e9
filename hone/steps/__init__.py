"""Steps around a model: from what callers have (text, pictures, records) to its tensors, and from those to answers.

Here is what steps are, what of them fits together, and how they run; libraries that some need are imported when a
step is made ready. What a recipe says of them is in `record.py`, all of a model's steps in `pipeline.py`.
"""
