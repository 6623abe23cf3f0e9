"""Pages that are drawn from the records of load tests, never from live state."""
