"""Where episodes come from: data sets and recordings of any origin, each read as episodes where it is and never copied."""
