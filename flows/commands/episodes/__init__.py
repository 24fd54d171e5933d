"""`actwright episodes ...`: find episodes of all sets, recordings and audits, correct what is stated of them, and sort out failures."""
