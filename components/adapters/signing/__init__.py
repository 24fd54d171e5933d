"""Signatures: folders by `model-signing`, update metadata by The Update Framework, and their key files."""
