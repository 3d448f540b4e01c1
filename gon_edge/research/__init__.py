"""Importable research code: data sets, measures, peers and the two protocols.  torch and scikit-learn live here.

Nothing in the daemon imports this package; it comes with ``pip install gon-edge[research]``.
"""
