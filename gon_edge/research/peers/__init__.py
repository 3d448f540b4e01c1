"""The methods of the benchmark by name.

A method is imported when it is made, so that a process that measures one does not carry the others' libraries.
Where a method has more than one reasonable setting, each is a method of its own: a table then compares every method
in its best setting for all sets, and no setting is ever chosen a set.
"""

from __future__ import annotations

import importlib
from typing import Any

from gon_edge.research.peers.peer import Peer

_PEERS_PACKAGE = __name__

PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: (module in this folder, class, settings)
    "random": ("trivial", "Random", {}),
    "distance-from-mean": ("trivial", "DistanceFromMean", {}),
    "largest-z": ("trivial", "LargestZ", {}),
    "last-difference": ("trivial", "LastDifference", {}),
    "pca": ("pca", "PCA", {}),
    "pca-40": ("pca", "PCA", {"window": 40}),
    "pca-40-clipped": ("pca", "PCA", {"window": 40, "clip_train": True}),
    "pca-row": ("pca", "PCA", {"window": 1, "variance": 0.95}),
    "kmeans-10": ("kmeans", "KMeans", {}),
    "kmeans-10-40": ("kmeans", "KMeans", {"window": 40}),
    "kmeans-64": ("kmeans", "KMeans", {"k": 64}),
    "kmeans-64-40": ("kmeans", "KMeans", {"k": 64, "window": 40}),
    "kmeans-netdata": ("kmeans", "NetdataKMeans", {}),
    "knn": ("knn", "KNN", {}),
    "knn-40": ("knn", "KNN", {"window": 40}),
    "lof": ("lof", "LOF", {}),
    "iforest": ("iforest", "IForest", {}),
    "iforest-row": ("iforest", "IForest", {"window": 1}),
    "ocsvm": ("ocsvm", "OCSVM", {}),
    "ocsvm-40": ("ocsvm", "OCSVM", {"window": 40}),
    "dilof": ("dilof", "DILOF", {}),
    "onlad": ("onlad", "ONLAD", {}),
    "onlad-15": ("onlad", "ONLAD", {"window": 15}),
    "onlad-40": ("onlad", "ONLAD", {"window": 40, "hidden": 64}),
    "hstrees": ("hstrees", "HSTrees", {}),
    "hstrees-streaming": ("hstrees", "HSTrees", {"learn": True, "window_size": 250}),
    "matrix-profile": ("matrix_profile", "MatrixProfile", {}),
    "matrix-profile-z": ("matrix_profile", "MatrixProfile", {"normalise": True}),
    "usad": ("usad", "USAD", {}),
    "tranad": ("tranad", "TranAD", {}),
    "mad-gan": ("mad_gan", "MADGAN", {}),
    "slimgan": ("slimgan", "SlimGAN", {}),
    "ganomaly": ("ganomaly", "GANomaly", {}),
    "ols-ar": ("ols_ar", "OLSAutoregression", {}),
    "ridge-ar": ("ols_ar", "OLSAutoregression", {"ridge": 1.0}),
    "paano": ("paano", "PaAno", {}),
    "paano-level": ("paano", "PaAno", {"normalise": False}),
}


def make(name: str, random_state: int = 0) -> Peer:
    """Return an unfitted method.

    Raises
    ------
    KeyError
        When there is no method of that name.
    """
    module, class_name, settings = PEERS[name]
    made: Peer = getattr(importlib.import_module(f"{_PEERS_PACKAGE}.{module}"), class_name)(
        random_state=random_state, **settings
    )
    return made
