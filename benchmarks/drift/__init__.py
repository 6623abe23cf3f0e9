"""Hone's drift detection beside other tools', on the same streams of real rows."""
