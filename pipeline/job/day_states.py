"""How far each day of a daily job has come: the content of daily.json."""

import dataclasses
import json
import pathlib
import re

from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.storage import files

STAGES = ("build", "audit", "drift", "train", "report", "export")
STATE = "daily.json"
_NAME = re.compile(r"[\w.-]*\w[\w.-]*")


@dataclasses.dataclass
class Day:
    """How far a day has come.

    Attributes:
        name: Name of the day, and of its data set and run.
        done: The stages that are complete, in order.
        refused: Reason why the last attempt ended; "" if it did not.
        version: Number of the version that it publishes; None before the export.
    """

    name: str
    done: list[str] = dataclasses.field(default_factory=list)
    refused: str = ""
    version: int | None = None

    @property
    def stage(self) -> str:
        """The stage that comes next; "" after the last."""
        return next((stage for stage in STAGES if stage not in self.done), "")


@dataclasses.dataclass
class Days:
    """The days of a directory, the earliest first; kept in daily.json.

    Attributes:
        workdir: Directory of the daily job.
        days: All days so far.
    """

    workdir: pathlib.Path
    days: list[Day]

    @classmethod
    def load(cls, workdir: pathlib.Path) -> "Days":
        """Reads daily.json; there are no days if there is no such file.

        Raises:
            UserError: The file is damaged.
        """
        file = workdir / STATE
        if not file.exists():
            return cls(workdir, [])
        content = read_json(file, "the state of the daily job", "restore it from a copy.")
        try:
            return cls(workdir, [Day(**day) for day in content["days"]])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"Expected the state of the daily job in {file}, found {error}.",
                "restore it from a copy.",
            ) from None

    def save(self) -> None:
        """Writes daily.json."""
        content = {"days": [dataclasses.asdict(day) for day in self.days]}
        files.write_bytes(self.workdir / STATE, f"{json.dumps(content, indent=2)}\n".encode())

    def begin(self, name: str) -> Day:
        """The day of a name, which is added unless it is there.

        Raises:
            UserError: The name is no name of a directory, later days have begun already, or the
                events of an earlier day would be missing from the histories of a new one.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--day: expected letters, digits, '-', '_' and '.', found {name!r}.",
                "for example --day=2026-11-02.",
            )
        for day in self.days:
            if day.name == name:
                if day.stage and day is not self.days[-1]:
                    raise UserError(
                        f"Expected a day after {self.days[-1].name}, which has begun, found "
                        f"{name}, which ended at {day.stage}.",
                        "data sets stand on each other in the order in which days were built.",
                    )
                return day
        for earlier in self.days:
            if "build" not in earlier.done:
                raise UserError(
                    f"Expected the data set of {earlier.name} before that of {name}, found it "
                    f"unfinished: {earlier.refused or 'the build was interrupted'}",
                    f"finish it with --day={earlier.name}, or take it out of "
                    f"{self.workdir / STATE} to go on without its events.",
                )
        self.days.append(Day(name))
        return self.days[-1]

    def last(self, stage: str, before: Day) -> Day | None:
        """The last day before another one whose stage is complete; None if there is none."""
        earlier = self.days[: self.days.index(before)]
        return next((day for day in reversed(earlier) if stage in day.done), None)

    def set_of(self, day: Day) -> pathlib.Path:
        """The data set of a day."""
        return self.workdir / "sets" / day.name

    def run_of(self, day: Day) -> pathlib.Path:
        """The run of a day."""
        return self.workdir / "runs" / day.name

    @property
    def model(self) -> pathlib.Path:
        """The directory of versions."""
        return self.workdir / "model"
