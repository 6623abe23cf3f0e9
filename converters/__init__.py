"""From a recipe to proven variants: sources, passes, the run, the proof, the report.

Running a stored artifact is `hone.runtimes`; serving it is the room beside.
"""
