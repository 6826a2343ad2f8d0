"""Results -> words, tables, pictures and HTML pages."""
