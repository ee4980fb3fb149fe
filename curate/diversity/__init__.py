"""Says how alike records are: texts become unit vectors, vectors become clusters.

In reading order:

    texts.py    the texts to embed, kept on disk while records are tokenised
    embed.py    texts to unit vectors, with sentence-transformers
    cluster.py  vectors to clusters, with FAISS k-means
"""
