"""The account of the data: what each stage handed on of each source, and what fell away there."""
