"""The server: sockets, threads and time around the model."""
