"""Parts of `curate estimate` and `curate doctor` that depend on no stage: a sample, times, memory, findings.

In reading order:

    spread.py    takes an even sample of a stream of unknown length
    cost.py      fits the time that a batch takes to a few timed ones
    estimate.py  holds the estimate of a run, and compares it with what a finished run took
    findings.py  holds one finding of the doctor: pass, fail or note
"""
