"""A store of its own for each test."""

import pytest

from gon_edge.state.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path) as opened:
        assert opened.persistent
        yield opened
