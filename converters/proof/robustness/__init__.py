"""Whether a variant is more fragile than its source: rows that are disturbed alike for both, and what that shows."""
