"""What a valid configuration will do that its writer may not expect, for ``gon-edge check-config``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from gon_edge.config.schema import Config
from gon_edge.config.values import nearest
from gon_edge.errors import StoreError
from gon_edge.state.folder import ModelFolder
from gon_edge.stream.ledger import IN_WORDS
from gon_edge.stream.topics import Foreign, TopicTemplate, outermost


def remarks(config: Config) -> list[str]:
    """Lines for a person: own topics below a wildcard, filters within others, groups, and overrides of no stream yet.

    Parameters
    ----------
    config : Config
        A valid one.
    """
    return [*_of_subscriptions(config), *_of_overrides(config)]


def _of_subscriptions(config: Config) -> Iterator[str]:
    templates = [TopicTemplate.parse(subscription.topic) for subscription in config.subscriptions]
    foreign, own = Foreign(config), f"{config.mqtt.base_topic}/{config.node}/state/x"
    left = outermost(template.subscription for template in templates)
    for i, template in enumerate(templates):
        at = f"subscriptions[{i}].topic {template.text!r}"
        if template.match(own) is not None and foreign.reason(own, template.text):
            yield f"{at}: takes in {own.removesuffix('/state/x')}/#, which is left out: {IN_WORDS['own']}"
        if template.subscription not in left:
            yield f"{at}: lies within another subscription; the first in the list that can read a message does"
        if template.subscription != template.filter:
            group = template.subscription.split("/")[1]
            yield f"{at}: the broker spreads its messages over all clients of group {group!r}; each gets a part"


def _of_overrides(config: Config) -> Iterator[str]:
    known: list[str] = []
    with contextlib.suppress(OSError, StoreError):  # another user's
        known = sorted(ModelFolder(Path(config.state_dir)).streams())
    for name in config.streams.overrides:
        if known and name not in known:
            hint = nearest(name, known) or f"; there are: {', '.join(known[:20])}"
            yield f"streams.overrides.{name}: no stream of this name has a model yet{hint}"
