"""Several embodiments in one training of a published network: their examples as one list, each made by its own contract."""
