"""What a person asks of running policy services of a fleet: drills of the kill switch, comparisons of a shadow."""
