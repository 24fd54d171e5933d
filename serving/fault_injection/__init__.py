"""Seeded faults for anybody's client: a policy service that misbehaves by script, and a TCP link that does."""
