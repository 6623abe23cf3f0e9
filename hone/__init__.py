"""Hone: optimize a trained model under a budget, prove every variant, serve the best one.

This package holds what every room shares: recipe, artifact, store, hardware, runtimes and the command line.
Importing it is cheap; a framework is imported by the file that owns it, when it is used.
"""

__version__ = "0.1.0"
