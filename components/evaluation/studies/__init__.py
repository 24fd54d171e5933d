"""Studies: a comparison of two policies whose design is locked and whose trials are a chain that nothing can be taken out of."""
