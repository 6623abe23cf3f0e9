"""Asynchronous jobs: a request that is answered later, by whichever worker has room, and kept over restarts.

`record.py` is what a job is, a store keeps jobs (`folder_store.py` for the workers of a host, `redis_store.py` for
replicas), `runner.py` computes them behind the callers who wait, `endpoint.py` is their HTTP.
"""
