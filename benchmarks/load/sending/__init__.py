"""The sender: a process that sends requests and notes when, and the side of it that starts and follows such processes.

What is sent, to whom and how fast is decided above; here is only how it goes out and what came back.
"""
