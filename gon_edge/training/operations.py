"""What people do to running streams: train, answer alerts, accept, silence, go back to an earlier model.

An operation is a plain dict, ``{"do": "accept", "stream": "pump", ...}``, as it comes over the control socket: nothing
in it has been checked.  Each is carried out by one function here, whoever asks and wherever it happens: a `site.Site`
is the running daemon (`daemon.orders`) or a command while none runs (`ask`).  What the answers look like to a person is
the commands' business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from gon_edge.errors import GonEdgeError, InputError, NotEnoughData, StoreError
from gon_edge.events import ALERT_ANSWERS, AnswerWord
from gon_edge.stream.silences import Silence
from gon_edge.training.answers import NOTE_LENGTH, Answer, Span, answers, fault_spans, overlap, remember
from gon_edge.training.job import Order, make_job, moment
from gon_edge.training.settings import FitSettings
from gon_edge.training.site import Client, Site

log = logging.getLogger(__name__)

_LOOKED_THROUGH = 20  # alerts of a stream, to find the newest one that is an anomaly.  Not critical
_ALERTS_COUNTED = 100_000  # more than are kept
_NAME_LENGTH = 100  # of who answers.  Not critical: a user's name
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
    newest = _newest(site, stream)
    since, until = moment(asked["since"], newest), moment(asked.get("until") or {"at": newest}, newest)
    if not _rows_between(site, stream, since, until):
        raise NotEnoughData(stream, "no row is stored of that time; name a time that has some, by --since and --until")
    answer = _answer(site, asked, f"{stream}-accepted-{since:.0f}", "accepted", stream, (since, until))
    client.tell(released=_heed(site, answer))
    order = Order(stream, "accepted", since={"at": since} if asked.get("only") else None)
    site.rounds.ask([order], client, wait=True)


def feedback(site: Site, asked: Asked, client: Client) -> None:
    """Say of an ``alert`` that it was ``true``, ``expected`` or ``wrong``; a stream's name is its newest alert."""
    word = asked["answer"]
    if word not in ALERT_ANSWERS:
        raise InputError(f"say of an alert that it was {', '.join(ALERT_ANSWERS[:-1])} or {ALERT_ANSWERS[-1]}")
    about, event = _about(site, str(asked["alert"]))
    if event is not None:
        ended = event["timestamp"] if event["type"] == "end" else _newest(site, about.stream)
        about = replace(about, until=max(about.since, ended))
    answer = _answer(site, asked, about.id, word, about.stream, about.span)
    before = next((one for one in reversed(answers(site.store, about.stream)) if one.id == about.id), None)
    if before is not None and (before.answer, before.note) == (answer.answer, answer.note):
        client.answer(rounds=[], answer=asdict(before), again=True)
        return
    if event is not None:
        site.store.add_alert({**event, "answer": answer.answer, "note": answer.note})
    changed = _heed(site, answer)
    client.tell(answer=asdict(answer), rows=changed)
    if answer.normal or changed or (before is not None and before.normal):
        site.rounds.ask([Order(answer.stream, "accepted" if answer.normal else "answered")], client, wait=True)
    else:
        client.answer(rounds=[], answer=asdict(answer), again=False)  # its rows were never learned


def missed(site: Site, asked: Asked, client: Client) -> None:
    """Say that a stream had a fault which raised no alert: a window of rows around ``at``."""
    stream = _stream(site, asked)
    at = moment(asked["at"], _newest(site, stream))
    window = site.config.stream(stream).window or FitSettings().window
    half_s = window * (site.newest_row(stream)[1] or 1.0) / 2.0
    span = at - half_s, at + half_s
    if not _rows_between(site, stream, *span):
        raise NotEnoughData(stream, "no row is stored of that time; name another one by --at")
    answer = _answer(site, asked, f"{stream}-missed-{at:.0f}", "missed", stream, span)
    client.tell(answer=asdict(answer), rows=_heed(site, answer))
    site.rounds.ask([Order(stream, "answered")], client, wait=True)


def _about(site: Site, name: str) -> tuple[Answer, dict[str, Any] | None]:
    """What is answered, as an answer without words, and the newest event of it where it is an alert."""
    event = site.store.alert(name)
    if event is None and site.knows(name):
        newest = site.store.alerts(_LOOKED_THROUGH, stream=name)
        event = next((one for one in newest if one["kind"] != "missing"), None)
        if event is None:
            raise InputError(f"stream {name!r} has had no alert yet")
    if event is not None and event["kind"] == "offline":
        raise InputError(f"alert {name!r} is about the broker, and no reading was wrong")
    if event is not None:
        return Answer(event["id"], "true", event["stream"], event["since"], event["timestamp"], 0.0), event
    for stream in site.streams():
        for given in answers(site.store, stream):
            if given.id == name:
                return given, None
    raise InputError(f"no alert {name!r}; gon-edge alerts lists them with their names")


def _answer(site: Site, asked: Asked, name: str, word: AnswerWord, stream: str, span: Span) -> Answer:
    """The answer that is asked for, with the model it finds in use."""
    model, note = site.model(stream), str(asked.get("note") or "")
    if len(note) > NOTE_LENGTH:
        raise InputError(f"the note has {len(note)} characters; write at most {NOTE_LENGTH}")
    return Answer(
        id=name,
        answer=word,
        stream=stream,
        since=span[0],
        until=span[1],
        at=round(site.clock.wall(), 3),
        by=str(asked.get("by") or "")[:_NAME_LENGTH],
        note=note,
        version=model.version if model is not None else "",
        threshold=round(model.threshold, 6) if model is not None else None,
    )


def _heed(site: Site, answer: Answer) -> int:
    """Remember an answer, and let its rows be learned or not; how many rows changed.

    What was called a fault stays left out, whatever longer span is called normal.
    """
    store, stream = site.store, answer.stream
    remember(store, answer)
    if answer.normal:
        changed = store.release(stream, *answer.span)
        for fault in overlap(answer.span, fault_spans(store, stream)):
            changed -= store.quarantine(stream, *fault)
    else:
        changed = store.quarantine(stream, *answer.span)
    site.keep()
    site.answered(answer)
    if changed or answer.normal:
        site.rounds.cancel(stream)  # it began with other rows
    log.info("stream %r: %s is answered: %s; %d rows", stream, answer.id, answer.answer, changed)
    return changed


def _newest(site: Site, stream: str) -> float:
    """Unix seconds of a stream's newest row."""
    newest, _ = site.newest_row(stream)
    if newest is None:
        raise InputError(f"stream {stream!r} has no rows yet")
    return newest


def _rows_between(site: Site, stream: str, since: float, until: float) -> bool:
    """Whether a stream has a row of that time."""
    outline = site.store.outline(stream, since=since)
    return any(bool((chunk.timestamps <= until).any()) for chunk in outline)


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


# -- whole streams -----------------------------------------------------------------------------------------------------


def list_streams(site: Site, _asked: Asked, client: Client) -> None:
    """What there is of each stream, whether it is scored here or not."""
    client.answer(streams=[_holdings(site, name) for name in sorted(_all_streams(site))], live=site.live)


def remove(site: Site, asked: Asked, client: Client) -> None:
    """Let go of a stream and of all there is of it; ``dry_run`` answers what that is."""
    name = _kept_stream(site, asked)
    held = _holdings(site, name)
    opened = site.store.alerts(_ALERTS_COUNTED, stream=name, active=True)
    if not asked.get("dry_run"):
        site.rounds.cancel(name)
        _write_or_refuse(site)
        site.close(name, ends=True)
        site.store.remove_stream(name, site.clock.monotonic())
        site.models.remove(name)
        if site.silences.remove(name):
            keep_silences(site)
        log.info("stream %r is removed, with %d rows and %d models", name, held["rows"], len(held["models"]))
    client.answer(removed=held, open=opened, live=site.live)


def rename(site: Site, asked: Asked, client: Client) -> None:
    """Give a stream another name, ``to``: with models, rows, alerts, answers and silences."""
    old, new = _kept_stream(site, asked), asked["to"]
    if not isinstance(new, str) or not new or new == old:
        raise InputError("the new name is empty, or the one it has")
    if site.models.versions(new) or site.model(new) is not None:
        raise InputError(f"stream {new!r} has a model of its own; see gon-edge streams remove")
    held = _holdings(site, old)
    for name in (old, new):
        site.rounds.cancel(name)
    _write_or_refuse(site)
    is_live = site.live and not {old, new}.isdisjoint(site.streams())
    for name in (old, new):
        site.close(name, ends=False)
    try:
        site.store.rename_stream(old, new, site.clock.monotonic())
        site.models.rename(old, new)
    except (StoreError, OSError):
        if is_live:
            site.reopen(old)
        raise
    site.silences.rename(old, new)
    keep_silences(site)
    if is_live:
        site.reopen(new)
    log.info("stream %r is called %r now", old, new)
    client.answer(renamed=held, to=new, live=site.live)


def _all_streams(site: Site) -> set[str]:
    """Streams of which there is anything: also those that there is no room for."""
    return {*site.streams(), *site.models.streams(), *(site.store.streams() if site.live else ())}


def _write_or_refuse(site: Site) -> None:
    """See that the disk can be written, before anything has changed that is not on it."""
    site.keep()
    if site.store.last_error is not None:
        raise StoreError(site.store.last_error)


def _kept_stream(site: Site, asked: Asked) -> str:
    name, known = asked["stream"], _all_streams(site)
    if not isinstance(name, str) or name not in known:
        raise unknown_stream(str(name), known)
    return name


def _holdings(site: Site, name: str) -> dict[str, Any]:
    """What there is of a stream."""
    newest, _ = site.newest_row(name)
    return {
        "stream": name,
        "scored": name in site.streams() if site.live else None,
        "rows": site.store.streams().get(name, 0),
        "newest": newest,
        "models": [found.version for found in site.models.versions(name)],
        "alerts": len(site.store.alerts(_ALERTS_COUNTED, stream=name)),
        "open_alerts": len(site.store.alerts(_ALERTS_COUNTED, stream=name, active=True)),
        "silences": sum(one.stream == name for one in site.silences.active(site.clock.wall())),
    }


# -- requests ----------------------------------------------------------------------------------------------------------

OPERATIONS: Mapping[str, Operation] = {
    "retrain": retrain,
    "accept": accept,
    "feedback": feedback,
    "missed": missed,
    "rollback": rollback,
    "reload-model": reload_model,
    "silence": silence,
    "unsilence": unsilence,
    "silences": silences,
    "streams": list_streams,
    "remove": remove,
    "rename": rename,
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
        budget = asked.get("budget_bytes")
        common = {
            "budget_bytes": None if budget is None else int(budget),
            "since": _moment(asked.get("since")),
            "until": _moment(asked.get("until")),
            "include_quarantined": bool(asked.get("include_quarantined", False)),
            "rows_file": str(asked.get("rows_file", "")),
            "rows_options": dict(asked.get("rows_options") or {}),
            "force": bool(asked.get("force", False)),
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a request for training: {error}") from None
    for name in names:
        if name not in known and not common["rows_file"]:
            raise unknown_stream(name, known)
    if not names:
        raise InputError("there is no stream yet: no message has arrived on a subscribed topic")
    return [Order(name, "asked", **common) for name in dict.fromkeys(names)]  # type: ignore[arg-type]


def _moment(asked: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if asked is None else {str(key): float(value) for key, value in asked.items()}


def _stream(site: Site, asked: Asked) -> str:
    """The stream that is asked for, which there is."""
    name = asked["stream"]
    if not isinstance(name, str) or not site.knows(name):
        raise unknown_stream(str(name), site.streams())
    return name


def unknown_stream(name: str, known: Collection[str]) -> InputError:
    """The error that says which streams there are."""
    shown = ", ".join(sorted(known)[:_STREAMS_NAMED]) or "none yet"
    return InputError(f"no stream {name!r}; there are: {shown}{', ...' if len(known) > _STREAMS_NAMED else ''}")
