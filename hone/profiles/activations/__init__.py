"""What values flow through a model, layer by layer: ranges, dead units, outlying channels, and what int8 makes of them.

Where time goes is in the folder above.
"""
