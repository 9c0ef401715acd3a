"""Whether an encoder can go in: facts from its files, and the checks that judge them."""
