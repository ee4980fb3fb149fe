"""The Parquet files of a run: one module per schema, each with its writer and reader."""
