"""The connection to the policy service: pure connection state, and the sockets that carry it."""
