"""Services: BentoML services around stored artifacts."""
