"""What to run: the schema, YAML and --set, the crop grammar, what is known of a spec without data."""
