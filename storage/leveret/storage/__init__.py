"""What survives a restart: the store's interface, the changes it takes, and its engines."""
