"""What changed when a service began to do worse: versions, traffic, columns, callers, pods and stages, by evidence."""
