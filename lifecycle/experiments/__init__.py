"""A/B tests: versions beside each other in running services, figures of what they do, and who wins."""
