"""What is kept of requests: Parquet files that a key may encrypt, who got which answer, and feedback that comes later.

Services write it, `hone feedback` and `hone records` read it. What rows look like on the whole is in `hone/sketches`.
"""
