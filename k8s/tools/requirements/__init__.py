"""What models in Python need installed, for images: by version and hash, beside what any image has."""

from .lock import requirements_lock

__all__ = ["requirements_lock"]
