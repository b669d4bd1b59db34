"""Publication of versions that never exist half-written, and the way back to an earlier one.

`components.serving_places` knows how a version appears at once, in a folder and under a URI; here is what goes into it,
which versions stay, and what a rollback is. Each version carries the checksums of its files.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from components import checksums, model_card, progress
from components.errors import GraftError, UsageError, printable
from components.serving_places import (
    SAVED_MODEL,
    Content,
    LocalServing,
    RemoteServing,
    changed_meanwhile,
    open_serving,
)

# For `publish(expected=...)`: whatever is in service.
UNCHECKED = object()
OUR_FILES = (model_card.CARD_FILE, checksums.CHECKSUMS_FILE)

# A file that lies beside the model: where it is, what is in it, or what is in it once the version is known.
Extra = Content | Callable[[int], bytes]
Place = LocalServing | RemoteServing


def versions(serving: Path | str) -> list[int]:
    """Published versions, oldest first; empty where nothing was published."""
    return open_serving(serving).versions()


def newest(serving: Path | str) -> Path | str | None:
    """The version in service, as a path or a URI as `serving` is; None where nothing was published."""
    place = open_serving(serving)
    number = place.in_service()
    return None if number is None else place.location(number)


def publish(
    model: Path,
    serving: Path | str,
    keep: int,
    extras: Mapping[str, Extra] | None = None,
    expected: int | object | None = UNCHECKED,
) -> Path | str:
    """Copies a SavedModel into a new version, which appears at once and goes into service.

    Args:
      model: folder of the SavedModel.
      serving: base path, made where it is missing, or a URI.
      keep: how many versions stay, this one included; at least 1. Older ones are removed (see `retire`).
      extras: what else goes into the version, by name in its folder.
      expected: the version that must be in service for it, None for nothing.

    Returns:
      The version, as a path or a URI as `serving` is. Versions are Unix seconds, but always greater than every earlier
      one, so that two publications in a second, or a clock that goes backwards, cannot collide.

    Raises:
      GraftError: something else is in service than expected; nothing was published.
      OutputBusy: another process is publishing there and does not come to an end.
      OSError: the version cannot be written; what is in service stays.
    """
    place = open_serving(serving)
    with place.held():
        in_service = place.in_service()
        if expected is not UNCHECKED and in_service != expected:
            raise changed_meanwhile(place.place, expected, in_service)
        version = _add(place, {**checksums.files_of(model), **(extras or {})}, in_service)
        retire(place, keep)
    return place.location(version)


def _add(place: Place, files: Mapping[str, Extra], in_service: int | None) -> int:
    place.tidy()
    version = place.next_version()
    contents = {name: content(version) if callable(content) else content for name, content in files.items()}
    # Of what is copied, not of the copies, so that a copy that went wrong is found out.
    digests = {name: checksums.digest(content) for name, content in contents.items()}
    place.add(version, {**contents, checksums.CHECKSUMS_FILE: checksums.dump(digests)}, in_service)
    return version


def retire(place: Place, keep: int) -> None:
    """Removes all but the newest `keep` models.

    The copies that rollbacks made do not count beside what they are copies of. What is in service stays, and so does a
    version that is not as it was published: somebody changed it, or put it there.
    """
    in_service = place.in_service()
    models: set[int] = set()
    for version in reversed(place.versions()):
        models.add(original(place, version))
        if len(models) > keep and version != in_service:
            # The new version is out; that an old one cannot be removed must not look like a failure of that.
            try:
                if place.untouched(version):
                    place.remove(version)
            except OSError as error:
                progress.warn(
                    f"Version {version}, which push.keep no longer keeps, cannot be removed from {place.place} "
                    f"({error.strerror or error}); remove it, or make it removable."
                )


def in_use(place: Place) -> set[int]:
    """The versions that no housekeeping may remove: what is in service, and what that rests on.

    That is the version whose model it is, those that rollbacks took out of service since, by which a run knows that it
    must not publish their models again, and the version with which the model was compared.
    """
    numbers, in_service = place.versions(), place.in_service()
    if in_service is None:
        return set()
    found, version = {in_service}, in_service
    # Ever lower, whatever somebody wrote into a card.
    while (noted := model_card.rollback_of(read_card(place, version))) and noted["instead_of"] < version:
        version = noted["instead_of"]
        found |= {noted["of"], noted["stands_for"], version}
    first = original(place, in_service)
    gate = read_card(place, first).get("gate")
    gate = gate if isinstance(gate, dict) else {}
    compared = {gate.get(name) for name in ("baseline_version", "in_service_version")} & set(numbers)
    # What a card does not say, the order says.
    compared |= {max((number for number in numbers if number < first), default=first)}
    found |= {first, *compared, *(original(place, number) for number in compared)}
    return found & set(numbers)


# ---- what lies there ------------------------------------------------------------------------------------------------


def read_card(place: Place, version: int) -> dict:
    """The model card of a version; one without known fields where it has none."""
    return model_card.load(place.read(version, model_card.CARD_FILE))


def original(place: Place, version: int) -> int:
    """The version in which the model first went out: another one for the copy that a rollback made."""
    noted = model_card.rollback_of(read_card(place, version))
    return noted["of"] if noted else version


def stands_for(place: Place, version: int | None) -> int | None:
    """The version that a run published last, as long as only rollbacks came after it."""
    noted = None if version is None else model_card.rollback_of(read_card(place, version))
    return noted["stands_for"] if noted else version


def taken_back(serving: Path | str, in_service: int | None, model: Path) -> int | None:
    """Whether a person took this very model out of service.

    Data, settings or code may change without changing what is trained, or change back; neither is a reason to undo a
    rollback.

    Args:
      serving: base path or URI.
      in_service: what is in service there.
      model: folder of the candidate.

    Returns:
      The version of the same files that a rollback replaced, if no run has published anything since.
    """
    place = open_serving(serving)
    if in_service is None or in_service == stands_for(place, in_service):
        return None
    current, version = original(place, in_service), in_service
    # Ever lower, whatever somebody wrote into a card.
    while (noted := model_card.rollback_of(read_card(place, version))) and noted["instead_of"] < version:
        version = noted["instead_of"]
        # What came back into service meanwhile is no longer out of it.
        if original(place, version) != current and holds(place, version, model):
            return version
    return None


def holds(place: Place, version: int, model: Path) -> bool:
    """Whether a version was made of the files of this model."""
    published = checksums.parse(place.read(version, checksums.CHECKSUMS_FILE) or b"")
    candidate = {name: checksums.digest(path) for name, path in checksums.files_of(model).items()}
    return candidate.items() <= published.items()


def local_copy(serving: Path | str, scratch: Path) -> Path:
    """A local base path whose newest version is the one in service: the folder itself, or a download.

    Args:
      serving: base path or URI.
      scratch: takes a download; made, and emptied if there is one from before.
    """
    place = open_serving(serving)
    if isinstance(place, LocalServing):
        return place.place
    if scratch.exists():
        shutil.rmtree(scratch)
    in_service = place.in_service()
    if in_service is not None:
        place.fetch(in_service, scratch)
    return scratch


# ---- the way back ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
      version: what is in service now.
      of: the version in which its model first went out.
      instead_of: what was in service before.
      verified: whether the model was checked against its checksums; not where it has none.
      left_out: files that lay there without having been published, and were not copied.
    """

    version: int
    of: int
    instead_of: int
    verified: bool
    left_out: list[str]


def rollback(serving: Path | str, to: int | None = None) -> Rollback:
    """Publishes a copy of an earlier version, so that it is the newest again. Nothing is removed.

    Args:
      serving: base path or URI.
      to: the version; None for the one whose model was in service before today's.

    Raises:
      UsageError: there is nothing to go back to, or no such version.
      GraftError: the version is damaged, or something else went into service meanwhile.
      OutputBusy: another process is publishing there and does not come to an end.
    """
    place = open_serving(serving)
    if not place.versions():
        raise UsageError(f"There is no version in {serving}; give a serving folder, such as OUTPUT/serving.")
    with place.held(), tempfile.TemporaryDirectory() as scratch:
        in_service = place.in_service()
        target = _target(place, in_service, to)
        folder = place.fetch(target, Path(scratch))
        found = _require_whole(place, target, folder)
        left_out = found.extra if found else []
        files = {
            name: path
            for name, path in checksums.files_of(folder).items()
            if name not in OUR_FILES and name not in left_out
        }
        numbers = {
            "of": original(place, target),
            "instead_of": in_service,
            "stands_for": stands_for(place, in_service),
        }
        card = model_card.rolled_back(read_card(place, target), **numbers)
        version = _add(place, files | {model_card.CARD_FILE: lambda number: model_card.dump(card, number)}, in_service)
    return Rollback(version, numbers["of"], in_service, found is not None, left_out)


def _target(place: Place, in_service: int | None, to: int | None) -> int:
    """The version to go back to."""
    numbers = place.versions()
    listed = ", ".join(map(str, numbers))
    if to is None:
        # What came before the model, not before its copy: a second rollback goes further back.
        earlier = [number for number in numbers if number < original(place, in_service)]
        if not earlier:
            raise UsageError(
                f"Nothing was in service before version {in_service} in {place.place}; "
                f"--to takes one of {listed}, and push.keep says how many stay."
            )
        return earlier[-1]
    if to not in numbers:
        raise UsageError(f"There is no version {to} in {place.place}; --to takes one of {listed}.")
    if to == in_service:
        raise UsageError(f"Version {to} in {place.place} is in service already; --to takes one of {listed}.")
    return to


def _require_whole(place: Place, version: int, folder: Path) -> checksums.Findings | None:
    if not (folder / SAVED_MODEL).is_file():
        raise GraftError(f"Version {version} in {place.place} is no SavedModel (it has no {SAVED_MODEL}).")
    found = checksums.verify(folder)
    if found and not found.usable:
        problems = [f"{printable(name)} is damaged" for name in found.damaged]
        problems += [f"{printable(name)} is missing" for name in found.missing]
        raise GraftError(
            f"Version {version} in {place.place} is not what was published: {', '.join(problems[:5])}; nothing was "
            "changed, give another version with --to."
        )
    return found
