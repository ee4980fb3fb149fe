"""Writes and reads the files of a run that hold a value per record or per cell; one module per schema.

In reading order:

    parquet.py        opens Parquet files; tells a damaged or missing one by name
    digests.py        short digests by which a run knows its own tables again
    chunks.py         chunks of scores on their way to scores.parquet
    scores.py         writes scores.parquet: what every record is, and its scores
    score_columns.py  reads columns of scores.parquet
    own_scores.py     a person's own scores from a file
    embeddings.py     embeddings.npy
    clusters.py       clusters.parquet
    selection.py      selection.parquet: kept or not, and why, for every record
    evaluation.py     evaluation.parquet and evaluation.json
    comparison.py     comparison.parquet and comparison.json
    json_values.py    values as JSON can hold them
"""
