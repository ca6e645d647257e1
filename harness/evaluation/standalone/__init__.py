"""Images from anywhere, measured by a command."""
