"""The decoding engine measured: against its peers for time, against plain decoding for equivalence."""
