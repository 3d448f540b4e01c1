"""What people do to running streams: train, accept, silence, go back to an earlier model.

An operation is a plain dict, ``{"do": "accept", "stream": "pump", ...}``, as it comes over the control socket: nothing
in it has been checked.  Each is carried out by one function here, whoever asks and wherever it happens: a `site.Site`
is the running daemon (`daemon.orders`) or a command while none runs (`ask`).  What the answers look like to a person is
the commands' business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

from gon_edge.errors import GonEdgeError, InputError, NotEnoughData, StoreError
from gon_edge.stream.silences import Silence
from gon_edge.training.job import Order, accepted_spans, make_job, moment
from gon_edge.training.settings import FitSettings
from gon_edge.training.site import Client, Site

log = logging.getLogger(__name__)

_ACCEPTED_KEPT = 32
"""Spans kept of each stream, the newest.  Not critical: a person accepts a few in a year, and each is two numbers."""

_STREAMS_NAMED = 10  # in an error.  Not critical: one line

Asked = Mapping[str, Any]
Operation = Callable[[Site, Asked, Client], None]


def carry_out(site: Site, asked: Asked, client: Client) -> None:
    """Carry out what is asked; the client gets the answer, now or when the rounds it asks for have ended.

    Whatever is wrong with the request is an answer, too: nothing that a client sends ends the caller.
    """
    try:
        operation = OPERATIONS.get(asked["do"])
        if operation is None:
            raise InputError("this gon-edge does not know that request; is the command a newer one?")
        operation(site, asked, client)
    except GonEdgeError as error:
        client.refuse(error)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        log.debug("not a request: %s", asked, exc_info=True)
        client.refuse(f"not a request: {error!r}")
    except OSError as error:
        client.refuse(StoreError(f"the state directory cannot be written: {error.strerror or error}"))


# -- models ------------------------------------------------------------------------------------------------------------


def retrain(site: Site, asked: Asked, client: Client) -> None:
    """Train streams again; ``dry_run`` answers the jobs and starts nothing."""
    wanted = orders(asked, site.streams())
    if asked.get("dry_run"):
        client.answer(jobs=[asdict(make_job(order, site)) for order in wanted])
        return
    site.rounds.ask(wanted, client, wait=bool(asked.get("wait")))


def accept(site: Site, asked: Asked, client: Client) -> None:
    """Say that rows of some time are normal, and have them learned: ``since``, ``until``, and ``only`` these."""
    stream = _stream(site, asked)
    newest, _ = site.newest_row(stream)
    if newest is None:
        raise InputError(f"stream {stream!r} has no rows yet")
    since, until = moment(asked["since"], newest), moment(asked.get("until") or {"at": newest}, newest)
    released = _release(site, stream, since, until)
    log.info("stream %r: %d rows are accepted as normal", stream, released)
    site.rounds.cancel(stream)  # it began without these rows
    client.tell(released=released)
    order = Order(stream, "accepted", since={"at": since} if asked.get("only") else None)
    site.rounds.ask([order], client, wait=True)


def _release(site: Site, stream: str, since: float, until: float) -> int:
    """Release the rows of a span, and remember it; how many rows that were left out lie there.

    Raises
    ------
    NotEnoughData
        Fewer than two windows, which make a training worth it.  They are released all the same.
    """
    released = site.store.release(stream, since, until)
    spans = [span for span in accepted_spans(site.store, stream) if span != (since, until)]
    site.store.put_state(f"accepted/{stream}", [*spans, (since, until)][-_ACCEPTED_KEPT:])
    site.keep()
    needed = 2 * (site.config.stream(stream).window or FitSettings().window)
    if released < needed:
        raise NotEnoughData(
            stream,
            f"{released} rows that were left out lie in that time, and a model needs {needed} to learn what is new; "
            "accept it again when there are more, or from an earlier time on",
        )
    return released


def rollback(site: Site, asked: Asked, client: Client) -> None:
    """Put an earlier model in use: ``version``, or the one before."""
    stream, version = _stream(site, asked), asked.get("version")
    model = site.models.rollback(stream, None if version is None else str(version))
    site.rounds.cancel(stream)
    site.use(stream, model)
    log.info("stream %r: back to model %s", stream, model.version)
    client.answer(stream=stream, version=model.version, live=site.live)


def reload_model(site: Site, asked: Asked, client: Client) -> None:
    """Use the model that somebody else has put in the stream's folder."""
    stream = _stream(site, asked)
    model, wrong = site.models.load(stream)
    if model is None:
        raise InputError(f"stream {stream!r} has no model: {wrong or 'train one'}")
    site.rounds.cancel(stream)
    site.use(stream, model)
    log.info("stream %r: model %s is in use", stream, model.version)
    client.answer(stream=stream, version=model.version, wrong=wrong, live=site.live)


# -- silences ----------------------------------------------------------------------------------------------------------


def silence(site: Site, asked: Asked, client: Client) -> None:
    """Hear nothing of a stream, or of one of its features, ``for_s`` seconds."""
    stream, feature = _stream(site, asked), str(asked.get("feature") or "")
    now = site.clock.wall()
    added = Silence(stream, feature, now, now + float(asked["for_s"]), str(asked.get("reason", "")))
    try:
        site.silences.add(added)
    except ValueError as error:
        raise InputError(str(error)) from None
    keep_silences(site)
    log.info("%s is silenced for %.0f s: %r", _what(added), added.until - now, added.reason)
    client.answer(silence=asdict(added))


def unsilence(site: Site, asked: Asked, client: Client) -> None:
    """End the silence of a ``feature``, an empty one for the whole stream; without, every silence of the stream."""
    stream, feature = str(asked["stream"]), asked.get("feature")
    removed = site.silences.remove(stream, None if feature is None else str(feature))
    if removed:
        keep_silences(site)
        for one in removed:
            log.info("%s is no longer silenced", _what(one))
    client.answer(removed=[asdict(one) for one in removed])


def silences(site: Site, _asked: Asked, client: Client) -> None:
    """Which silences count now, the first to end first."""
    client.answer(silences=[asdict(one) for one in site.silences.active(site.clock.wall())])


def _what(silence: Silence) -> str:
    whole = f"stream {silence.stream!r}"
    return f"feature {silence.feature!r} of {whole}" if silence.feature else whole


def keep_silences(site: Site) -> None:
    """Write the silences to the disk, and let the streams know them."""
    site.store.put_state("silences", site.silences.state())
    site.keep()
    site.silences_changed()


# -- requests ----------------------------------------------------------------------------------------------------------

OPERATIONS: Mapping[str, Operation] = {
    "retrain": retrain,
    "accept": accept,
    "rollback": rollback,
    "reload-model": reload_model,
    "silence": silence,
    "unsilence": unsilence,
    "silences": silences,
}


def orders(asked: Asked, known: Collection[str]) -> list[Order]:
    """The orders in a request ``{"do": "retrain", ...}``.

    Parameters
    ----------
    asked : mapping
        ``streams`` (list of names, empty for all), and what `Order` takes; checked here.
    known : collection of str
        Streams there are.

    Raises
    ------
    InputError
        A stream is not known, or a value is none.
    """
    try:
        names = [str(name) for name in asked.get("streams") or sorted(known)]
        budget, since = asked.get("budget_bytes"), asked.get("since")
        common = {
            "budget_bytes": None if budget is None else int(budget),
            "since": None if since is None else {str(key): float(value) for key, value in since.items()},
            "include_quarantined": bool(asked.get("include_quarantined", False)),
            "rows_file": str(asked.get("rows_file", "")),
            "force": bool(asked.get("force", False)),
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a request for training: {error}") from None
    for name in names:
        if name not in known and not common["rows_file"]:
            raise _unknown(name, known)
    if not names:
        raise InputError("there is no stream yet: no message has arrived on a subscribed topic")
    return [Order(name, "asked", **common) for name in dict.fromkeys(names)]  # type: ignore[arg-type]


def _stream(site: Site, asked: Asked) -> str:
    """The stream that is asked for, which there is."""
    name = asked["stream"]
    if not isinstance(name, str) or not site.knows(name):
        raise _unknown(str(name), site.streams())
    return name


def _unknown(name: str, known: Collection[str]) -> InputError:
    """The error that says which streams there are."""
    shown = ", ".join(sorted(known)[:_STREAMS_NAMED]) or "none yet"
    return InputError(f"no stream {name!r}; there are: {shown}{', ...' if len(known) > _STREAMS_NAMED else ''}")
