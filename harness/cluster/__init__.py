"""Where trials run: worker processes on this machine, and what the user sees of them."""
