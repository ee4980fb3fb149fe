"""Reads records from files and understands them as conversations.

From bytes to records, in reading order:

    files.py          finds the input and reads it, record by record and strictly
    folders.py        which files of a folder are read, which are not, and why
    kinds.py          what one file is, told from its first bytes and its name
    json_text.py      JSON and JSONL, read strictly
    json_array.py     the elements of a JSON array of any size, without loading it
    csv_text.py       CSV and TSV, read strictly
    arrow.py          Parquet, Arrow and hub data sets as records
    arrow_files.py    reads Parquet and Arrow files a piece at a time

From records to conversations:

    formats.py        which format records are in, told from their keys
    conversations.py  the turns of one record, for each format
    messages.py       what a message holds beside its text: tool calls, tools, other keys
    examples.py       all of it: records to examples
"""
