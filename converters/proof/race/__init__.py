"""The race of variants: what can't win any more is neither asked nor timed further. Not here: the verdicts.

Nothing in it calls a variant proven: those that are left have all rows and all turns of the full proof.
"""
