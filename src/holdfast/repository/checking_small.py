"""Looks for what is broken among the small objects: keys, names and runs (docs/format.md, sections 2 and 4)."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.model.errors import IntegrityBroken, NotFound
from holdfast.repository.area import Area, fetch
from holdfast.repository.format import names
from holdfast.repository.format.container import ObjectType, broken, prove_hash
from holdfast.storage.port import Store

Trouble = tuple[str, IntegrityBroken]

_KEY_OBJECTS = (
    (names.IDENTITY, ObjectType.IDENTITY),
    (names.STORE, ObjectType.STORE),
    (names.SLOTS, ObjectType.SLOT),
    (names.EPOCHS, ObjectType.EPOCH),
)


def broken_keys(store: Store) -> Iterator[Trouble]:
    """Yield every object that holds or tells keys and has other bytes than were written; needs no key itself."""
    for place, kind in _KEY_OBJECTS:
        for name in [place] if not place.endswith("/") else [info.name for info in store.list(place)]:
            try:
                prove_hash(name, fetch(store, name, kind, name))
            except IntegrityBroken as error:
                yield name, error
            except NotFound:
                continue  # removed since the listing; a missing identity is told by whoever opens


def broken_names(area: Area, is_used: bool) -> Iterator[Trouble]:
    """Yield the catalog's objects of an area that do not open; and its place, where it is used and none opens."""
    sound = False
    place = names.catalog(area.keys.area)
    for info in area.store.list(place):
        try:
            data = area.fetch(info.name, ObjectType.CATALOG, info.name)
            area.open(info.name, area.claim(ObjectType.CATALOG), data)
            sound = True
        except IntegrityBroken as error:
            yield info.name, error
        except NotFound:
            continue
    if is_used and not sound:
        yield place, broken(f"the catalog of {area.title}", "no object of it tells the names; the next backup puts one")


def broken_runs(area: Area) -> Iterator[Trouble]:
    """Yield the run records of an area that do not open."""
    for info in area.store.list(names.runs(area.keys.area)):
        try:
            data = area.fetch(info.name, ObjectType.RUN, info.name)
            area.open(info.name, area.claim(ObjectType.RUN, info.name.rsplit("/", 1)[1].encode()), data)
        except IntegrityBroken as error:
            yield info.name, error
        except NotFound:
            continue
