"""What model files may hold, looked at before a framework opens them.

Frameworks rebuild Python objects from a file, and some call whatever the file names. The checks here let through what
the framework's own writer puts into an ordinary model, and refuse the rest with the place and the remedy.
"""
