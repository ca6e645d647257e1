"""What the process tells the shell; 0 is success."""

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
