"""Writes and reads the files of a run that hold a value per record or per cell; one module per schema.

In reading order:

    parquet.py        opens Parquet files; a damaged or missing one is named in the error
    digests.py        computes digests of tables, by which a run recognises its own files
    chunks.py         stores a chunk of scores until scores.parquet is written
    scores.py         writes scores.parquet: status, lengths and scores of every record
    score_columns.py  reads columns of scores.parquet
    own_scores.py     reads a person's own scores from a file
    embeddings.py     opens embeddings.npy
    clusters.py       writes and reads clusters.parquet
    selection.py      writes and reads selection.parquet: kept or not, and why, for every record
    evaluation.py     writes and reads evaluation.parquet, and makes evaluation.json
    comparison.py     writes and reads comparison.parquet, and reads comparison.json
    json_values.py    turns values into what JSON can hold
"""
