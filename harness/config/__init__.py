"""From a tree of YAML files to validated, hashed trials."""
