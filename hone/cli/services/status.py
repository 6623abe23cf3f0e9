"""`hone status`."""

from hone.services.status.command import status

__all__ = ["status"]
