"""Passes that store or compute with fewer bits: int8 and int4 weights, static and dynamic int8, bf16, fp16."""
