"""What the benchmarks compare with. Each is a plain, careful use of the named library, not a straw man."""
