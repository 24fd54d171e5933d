"""Seeded faults for any client of the protocol: a policy service that misbehaves by script, and a faulty TCP link."""
