"""Where a model's time goes: its operators timed by its own runtime, and findings on what made it slow.

How a runtime times its operators is its own method; what is served, proven or loaded lies elsewhere.
"""
