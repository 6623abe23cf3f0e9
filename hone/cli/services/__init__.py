"""Commands that serve models, and those on who may call them and what they did."""
