"""The search for the serving settings of a model: which give the most rate within a limit, and which cost the least.

What a service holds with the settings that remain is proven in `benchmarks.capacity`.
"""
