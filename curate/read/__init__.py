"""Reads records from files, and understands them as conversations.

From bytes to records, in reading order:

    files.py          finds the input and reads its records, one by one and strictly
    folders.py        finds which files of a folder are read, which are not, and why
    file_names.py     reads what file names say: formats, splits, shards; refuses files that must not be mixed
    saved.py          lists the files of a data set that `datasets` saved
    kinds.py          tells what one file is, from its first bytes and its name
    json_text.py      reads JSON and JSONL strictly
    json_array.py     finds the elements of a JSON array of any size, without loading it
    csv_text.py       reads CSV and TSV strictly
    arrow.py          turns Parquet, Arrow and hub data sets into records
    arrow_files.py    reads Parquet and Arrow files a piece at a time

From records to conversations:

    formats.py        recognises the format of records from their keys
    conversations.py  reads the turns of one record, for each format
    messages.py       reads what a message holds beside its text: tool calls, tools, other keys
    variables.py      reads what a record gives a chat template beside: documents and variables
    examples.py       does all of it: records in, examples out
"""
