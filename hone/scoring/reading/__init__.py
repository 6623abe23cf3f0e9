"""Files of rows as Arrow tables, some rows at a time: one file here a format, found by its suffixes."""
