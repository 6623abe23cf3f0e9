"""What `hone score` makes of a runtime's rows/s: reading, steps and writing beside the bare runtime, in turns."""
