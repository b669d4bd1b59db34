"""Whether a tick trains, and why: from what a schedule is to train for and what is known of the runs before.

Nothing is read or written here, and nothing heavy imported: a tick that does not train is over in seconds.
"""

import calendar
import contextlib
import time
from dataclasses import dataclass
from typing import Any

from components.features import CLASS_NAME
from components.sentences import some
from pipeline.config import ScheduleConfig
from pipeline.inputs import NAMED, Inputs, Started, classes_changed
from pipeline.output import RUN_ID

DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Decision:
    """What a tick does.

    Attributes:
      train: None where the statistics of the images have to say: `of_drift` then.
      why: in a few words.
      afresh: whether training must not come from the cache, as nothing that it depends on need be new.
      resumes: what the run noted that it goes on with.
      drift: names of what the images differ in from those of the model in service.
    """

    train: bool | None
    why: str
    afresh: bool = False
    resumes: Started | None = None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True)
class Last:
    """The last run that ended as published or refused.

    Attributes:
      run_id: of it.
      noted: whether what follows could be compared.
      same_inputs: whether it read what there is today.
      same_service: whether what it left in service still is, or a rollback of it.
      same_schema: whether what is kept in `schema/` is what it left.
      inputs: what it read; None for one of an earlier release.
    """

    run_id: str
    noted: bool = True
    same_inputs: bool = True
    same_service: bool = True
    same_schema: bool = True
    inputs: Inputs | None = None

    @property
    def holds(self) -> bool:
        """Whether a run today could say no more than it."""
        return self.noted and self.same_inputs and self.same_service and self.same_schema


@dataclass(frozen=True)
class Situation:
    """What is known when a tick begins.

    Attributes:
      today: what a run would read.
      now: seconds since 1970.
      last: the last finished run.
      unfinished: id of a newer one that did not finish, and what it noted.
      in_service: the version in which the model in service first went out, which is a time in seconds since 1970.
      classes: of the model in service; None where that is not known.
      images_known: whether the statistics of its images are.
      no_drift: whether today's images were compared with those, and did not differ.
    """

    today: Inputs
    now: float
    last: Last | None = None
    unfinished: tuple[str, Started] | None = None
    in_service: int | None = None
    classes: list[str] | None = None
    images_known: bool = True
    no_drift: bool = False


def decide(policy: ScheduleConfig, at: Situation) -> Decision:
    """Whether to train.

    Args:
      policy: section `schedule` of the configuration.
      at: what is known.
    """
    last = at.last
    if last is None:
        return Decision(True, "no run has finished here yet")
    if at.unfinished and at.unfinished[1].inputs.fingerprint == at.today.fingerprint:
        run_id, started = at.unfinished
        reason = f" ({started.reason})" if started.reason else ""
        return Decision(True, f"run {run_id} did not finish{reason}", resumes=started)
    if not last.noted:
        return Decision(True, f"what run {last.run_id} had read was not noted")
    if not last.holds and at.in_service is None:
        return Decision(True, "nothing is in service")
    if not last.same_service:
        return Decision(True, f"what is in service is not what run {last.run_id} left there")
    new = _differences(at.today, last)
    if wanted := [words for trigger, words in new.items() if trigger in policy.train_on]:
        return Decision(True, _joined(wanted))
    if "always" in policy.train_on:
        return Decision(True, "schedule.train_on has always", afresh=True)
    if _is_old(policy.max_age_days, at, last):
        return Decision(True, f"model in service is {int((at.now - at.in_service) / DAY)} days old", afresh=True)
    if "drift" in policy.train_on and "new_data" in new:
        return _before_statistics(at, _joined(list(new.values())))
    return Decision(False, f"nothing to train for ({_joined(list(new.values()))})" if new else "nothing new")


def of_drift(distances: list[dict[str, Any]], asked: Decision) -> Decision:
    """What the statistics said.

    Args:
      distances: `{feature, measure, value, threshold}` from the images of the model in service.
      asked: the decision that was left open.
    """
    found = [row for row in distances if row["value"] > row["threshold"]]
    if not found:
        return Decision(False, f"no drift ({asked.why})")
    listed = [f"{row['feature']}, {row['value']:.2f} over {row['threshold']:g}" for row in found]
    return Decision(True, f"drift in {some(listed, NAMED)}", drift=tuple(row["feature"] for row in found))


def _before_statistics(at: Situation, new: str) -> Decision:
    """Whether images that no finished run has read have drifted, as far as that is known without reading them."""
    if at.no_drift:
        return Decision(False, f"no drift ({new})")
    if at.classes is not None and (changed := classes_changed(at.today.classes, at.classes)):
        return Decision(True, f"drift: {', '.join(changed)}", drift=(CLASS_NAME,))
    if not at.images_known:
        return Decision(True, f"the images of version {at.in_service} are not known, so drift from them cannot be seen")
    return Decision(None, new)


def _differences(today: Inputs, last: Last) -> dict[str, str]:
    """What is new since a run, by trigger."""
    if last.same_inputs:
        new: dict[str, str | None] = {}
    elif last.inputs is None:
        # All that is known is that something is.
        words = f"new since run {last.run_id}, which did not note what it read"
        new = dict.fromkeys(("new_data", "new_span", "new_configuration"), words)
    else:
        names = ("new_span", "new_data", "new_configuration")
        new = {name: getattr(today, name)(last.inputs) for name in names}
    if not last.same_schema and not new.get("new_configuration"):
        new["new_configuration"] = "schema/ was changed"
    return {name: words for name, words in new.items() if words}


def _joined(words: list[str]) -> str:
    return "; ".join(dict.fromkeys(words))


def _is_old(days: float | None, at: Situation, last: Last) -> bool:
    """Whether the model in service is older than so many days, and another one was not tried since.

    What was refused for its age would be refused by the next tick again, where nothing is new.
    """
    if days is None or at.in_service is None or (at.now - at.in_service) / DAY <= days:
        return False
    return not last.holds or (at.now - _began(last.run_id)) / DAY > days


def _began(run_id: str) -> float:
    """Seconds since 1970, as the run's id tells them."""
    with contextlib.suppress(ValueError):
        return calendar.timegm(time.strptime(run_id, RUN_ID))
    return 0.0
