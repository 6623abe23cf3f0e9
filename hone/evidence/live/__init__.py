"""Statistics of a model's live answers: what they lose against the proof, and what to expect without labels."""
