"""The command line: it draws and asks, and leaves the work to the rooms below.

A command, or a group of them, is one file in a folder here, named as the command, and holds it under that name. It is
found by itself, and imported when somebody asks for the command. Such a file imports what is heavy in its functions:
`hone --help` shows the first line of each.
"""
