"""What is trained: the extractor, its files, and the swap of its encoder."""
