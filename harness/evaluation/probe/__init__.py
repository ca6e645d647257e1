"""What trained attention looks like."""
