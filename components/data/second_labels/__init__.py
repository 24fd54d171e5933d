"""A second person's labels, given without seeing the first: which frames are asked, how far both agree, exchange with Label Studio."""
