"""What every `watch` has: whom it tells, what it shows, and that it runs until it is stopped. No command is here."""
