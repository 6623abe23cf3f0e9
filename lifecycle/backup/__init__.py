"""Backups of the model store and what was measured of it, and their restoration."""
