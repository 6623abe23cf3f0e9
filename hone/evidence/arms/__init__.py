"""What several versions beside each other prove: differences of means, how units were dealt, how many a test takes.

Every bound holds at all moments at once: whoever runs a test may look as often as he likes, and stop when he likes.
"""
