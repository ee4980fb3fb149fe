"""What a comparison says: differences with intervals, overlaps, correlations, labels, and a table to read. No files."""
