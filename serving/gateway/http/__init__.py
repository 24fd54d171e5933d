"""HTTP and WebSocket transport of the gateway: framing, authentication, back-pressure, draining."""
