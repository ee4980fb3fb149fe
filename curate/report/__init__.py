"""Makes what people look at: a preview of records, the report of a run, the difference of two selections.

Nothing here prints or runs a model. The three things to look at:

    preview.py     shows which tokens of records are scored, for the terminal and as a page
    report.py      shows a run and one of its selections as one self-contained page
    diff.py        shows how two selections of a run differ, for the terminal and as a page

What these three use, in reading order:

    visible.py     makes control characters visible
    run_table.py   reads the columns of a run and of a selection, joined by row
    summary.py     makes the tables of a report: costs, settings, clusters and groups
    names.py       names clusters after their own words
    projection.py  puts embeddings on a plane
    chart_data.py  computes the numbers that charts show
    chart.py       defines what all charts share
    figures.py     makes charts as Vega-Lite specifications
    results.py     makes tables and a chart of evaluation and comparison
    records.py     packs records and texts for a page
    spread.py      computes how columns and counts of two selections differ
    pages.py       fills the templates, and keeps pages from loading anything
    vega.py        gives the plotting library as a script

A new section of the report has four places: its numbers in summary.py or chart_data.py, its chart in figures.py, its
place on the page in templates/report.html.jinja, and `_values` and `_figures` of report.py, which hand them over.
"""
