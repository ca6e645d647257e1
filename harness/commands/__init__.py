"""One module a command: `add` describes it, and imports what it needs only when it runs."""
