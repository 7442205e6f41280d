"""`leveret ctl`: rabbitmqctl's verbs, by the local socket of a running broker."""
