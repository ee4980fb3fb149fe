"""Compares selectors: differences with intervals, overlaps, correlations, labels, and a table to read.

These are functions over numbers; nothing here reads a file or runs a model. In reading order:

    selectors.py   lists the built-in selectors by name, as settings of select.*
    cells.py       holds one measurement of one cell: a row of comparison.parquet
    intervals.py   computes the difference between two selectors, with an interval over seeds and records
    statistics.py  computes rank correlations of scores, overlaps of selections, lengths of what is kept
    labels.py      measures whether other people's judgements agree with a score, beside length alone
    table.py       makes the table: a row per number kept, selector, set and metric
    text_table.py  makes texts of the table, for the terminal and the report
    comparison.py  holds all of it as one value, as comparison.json does
"""
