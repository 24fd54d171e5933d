"""Labels of many frames: shards in, rows and errors out, by one process or several; and where each label came from."""
