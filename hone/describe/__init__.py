"""Looking at what there is: a host, an artifact layer by layer, two artifacts side by side."""
