"""Says what a comparison found: differences with intervals, overlaps, correlations, labels, and a table to read.

In reading order:

    selectors.py   the built-in selectors by name, as settings of select.*
    cells.py       one measurement of one cell: a row of comparison.parquet
    intervals.py   the difference between two selectors, with an interval over seeds and records
    statistics.py  rank correlation of scores, overlap of selections, lengths of what is kept
    labels.py      whether other people's judgements agree with a score, beyond what length explains
    table.py       the table: a row per kept fraction, selector, set and metric
    comparison.py  all of it as one value, as comparison.json holds it

Functions over numbers: nothing here reads a file or runs a model.
"""
