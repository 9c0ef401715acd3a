"""How good it is: predictions, metrics and errors."""
