"""Commands for what comes after a deployment."""
