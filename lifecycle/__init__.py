"""What happens to models after they are proven: the registry, rollouts and backups; drift comes here."""
