"""Episodes on the console: the table, one episode with its frames and signals, what people state of it, and the queue of failures."""
