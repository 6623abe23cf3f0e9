"""Commands on recipes and reports."""
