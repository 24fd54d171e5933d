"""What a person asks of a fleet from this side: orders to its controller, drills of the kill switch, comparisons of a shadow."""
