"""How it is trained: options, runs, batches, optimizer, speed."""
