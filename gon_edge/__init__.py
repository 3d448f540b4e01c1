"""gon-edge: streaming anomaly detection on the edge with a small Generative Optimization Network."""

__version__ = "0.1.0"
