"""One run of `hone optimize`: the plan, the passes in worker processes, the search, the conclusion."""
