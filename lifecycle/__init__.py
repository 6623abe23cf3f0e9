"""What happens to models after they are proven: the registry and backups; rollouts and drift come here."""
