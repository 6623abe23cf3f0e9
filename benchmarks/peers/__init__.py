"""Other servers and converters, each in an environment of its own and at its best documented settings.

A peer is one file, `scripts/NAME_peer.py`. It runs in its own environment, imports nothing of Hone, and begins with a
description of itself that `description.py` reads without running it.
"""
