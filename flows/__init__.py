"""When, and in what order: Prefect flows, the commands, and the one place where settings become things."""
