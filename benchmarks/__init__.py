"""`python -m benchmarks`: measurements of the harness itself, which nothing imports."""
