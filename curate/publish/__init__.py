"""What other programs read: the kept records, the data card, and files for other trainers."""
