"""Commands that measure a service."""
