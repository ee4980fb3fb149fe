"""Turns texts into unit vectors, and vectors into clusters of similar records.

In reading order:

    texts.py    keeps the texts to embed on disk; they are written while records are tokenized
    embed.py    embeds texts as unit vectors, with sentence-transformers
    cluster.py  assigns vectors to clusters, with FAISS k-means
"""
