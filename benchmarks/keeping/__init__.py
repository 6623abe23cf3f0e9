"""What it costs a service to keep something of its traffic: sketches, notes of answers, recorded rows."""
