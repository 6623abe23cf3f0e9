"""What the registry's aliases mean, and what must hold before that changes: promotion, rollback, history, pruning."""
