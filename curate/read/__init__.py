"""Records in and out: files, formats, and what is written for the next program."""
