"""`hone status`: is a running service in order. It needs nothing but the standard library, Click and Pydantic.

So an image that serves can check its pods: `python -m hone.services.status`.
"""
