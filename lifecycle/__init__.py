"""What happens to models after they are proven: backups today; the registry, rollouts and drift come here."""
