"""What answers turned out to be worth: feedback joined with answers, quality over time, estimates without labels."""
