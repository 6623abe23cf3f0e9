"""What a run found, as records, and the page that is drawn from them."""
