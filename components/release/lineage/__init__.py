"""What came from what: recordings, annotators, data sets, trainings, weights, versions, releases and cells as one graph."""
