"""What a run will cost, and what an examination finds; nothing here knows a stage.

In reading order:

    spread.py    an even sample of a stream whose length nobody knows
    cost.py      the time that a batch takes, fitted to a few that were timed
    memory.py    peak memory of a piece of work
    estimate.py  the estimate of a run, and how it compares with what a finished run took
    findings.py  one thing that the doctor looked at: pass, fail or note
"""
