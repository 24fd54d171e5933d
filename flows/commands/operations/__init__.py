"""Commands that keep the platform running: services on loopback, schedules, approvals."""
