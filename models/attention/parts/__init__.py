"""What attention variants are made of."""
