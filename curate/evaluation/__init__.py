"""Measures what a model is worth: response losses on references, lm-eval tasks, a judge.

In reading order:

    summary.py  losses record by record, and their two means
    losses.py   the response loss of a model on references, with or without an adapter
    tasks.py    tasks of lm-eval on a model in memory
    answers.py  greedy answers of a model to prompts
    server.py   questions to an OpenAI-compatible server
    judge.py    which of two answers a judge behind such a server prefers
"""
