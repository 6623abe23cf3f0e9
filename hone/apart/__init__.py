"""Python of a model's author, run apart: in processes of its own, which answer tensors with tensors.

Here is how such processes are started, asked, watched, ended and started again. What `worker.py` and `wire.py` import
is imported in each of them: NumPy, Python's own, and of Hone no more than `errors.py`.
"""
