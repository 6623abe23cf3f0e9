"""Whether traffic still looks like the rows of the proof: checks, watches, alerts, pages. Services write sketches."""
