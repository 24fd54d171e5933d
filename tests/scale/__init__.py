"""Checks at the size of real work, too long for `make test`: `make scale-test` runs each file here as a program."""
