"""The policy service: sessions, deadlines and refusals around one packaged model."""
