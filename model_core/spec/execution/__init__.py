"""How a chunk is executed, by evaluation and by a cell alike: chunking, holding, guard, requests."""
