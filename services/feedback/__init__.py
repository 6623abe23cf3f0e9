"""What a worker keeps for feedback: who got which answer, and labels and figures that come later. Files:
hone/traffic."""
