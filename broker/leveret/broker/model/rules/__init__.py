"""Who may do what, and the policies that govern queues and exchanges."""
