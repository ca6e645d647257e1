"""What metrics and tags are called, which way is good, how they are printed: each once."""
