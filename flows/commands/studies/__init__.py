"""Commands of studies: what to expect of a comparison, which there are, and a proof of their trials."""
