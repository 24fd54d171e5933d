"""The fleet's pages: what its controller tells, and orders to it in the name of the person who gives them."""
