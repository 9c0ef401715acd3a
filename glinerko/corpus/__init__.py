"""What comes in: from files to batches."""
