"""Results on disk: the types of a record, the run folder, tables, and writing files atomically."""
