"""Evaluates a model, with or without an adapter: response losses on references, lm-eval tasks, a judge.

In reading order:

    summary.py       averages losses in two ways: over records and over tokens
    losses.py        computes the response loss of a model on references
    task_results.py  reads lm-eval's results, with the value of each example
    tasks.py         runs lm-eval tasks on a model in memory
    answers.py       generates greedy answers to prompts
    server.py        asks an OpenAI-compatible server
    judge.py         asks a judge behind such a server which of two answers is better
"""
