"""Results on disk: the record's types, the run folder, tables, and writing files atomically."""
