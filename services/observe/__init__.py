"""What a service tells about itself: logs, metrics, traces, audit, recorded and shadowed traffic."""
