"""What a person looks at: records before they are paid for, the result of a run, two selections side by side.

    preview.py     tokens of records, scored and not, for the terminal and as a page
    report.py      a run as one self-contained page
    diff.py        two selections of a run, for the terminal and as a page

What these three stand on, in reading order:

    visible.py     makes control characters visible
    run_table.py   the columns of a run, joined by row
    summary.py     headline, cost, settings, what became of clusters and groups
    names.py       clusters named after their own words
    projection.py  embeddings on a plane
    chart_data.py  the numbers that charts show
    chart.py       what all charts share
    figures.py     charts as Vega-Lite specifications
    results.py     evaluation and comparison as tables and a chart
    records.py     records and texts, packed for a page
    spread.py      how two selections differ, as numbers
    pages.py       templates, and what a page is allowed to load: nothing
    vega.py        the plotting library

Functions over files and plain values: nothing here prints or runs a model.
"""
