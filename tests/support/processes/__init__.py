"""Programs that tests start, and what runs in the processes of a test."""
