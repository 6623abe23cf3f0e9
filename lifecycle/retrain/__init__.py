"""A new model from new data: trained, optimized, proven beside the champion, and promoted when the gates are open."""
