"""Who labels frames: simulator truth, a depth network, a pointing network; one file each."""
