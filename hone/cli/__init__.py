"""The command line, one file a group; it draws and asks, and leaves the work to the rooms below.

Commands import what they need when they run, so that `hone --help` is instant.
"""
