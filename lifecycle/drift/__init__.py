"""Whether traffic still looks like the rows of the proof: checks, watches, alerts and pages. Services write the sketches."""
