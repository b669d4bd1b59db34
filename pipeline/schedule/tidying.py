"""Housekeeping in a process that ends with the one that keeps the schedule.

    python -m pipeline.schedule.tidying OUTPUT CONFIGURATION

CONFIGURATION is JSON. One sentence on the standard output says what went; the exit code is that of the command.
"""

import os
import sys
import threading
from pathlib import Path

from components.errors import GraftError, OutputBusy


def main() -> None:
    """Applies the retention once."""
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    # What libraries print is not the sentence.
    said = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sentence, code = _tidied(Path(sys.argv[1]), sys.argv[2])
    os.write(said, f"{sentence}\n".encode())
    sys.exit(code)


def _tidied(folder: Path, configuration: str) -> tuple[str, int]:
    from pipeline.config import Config
    from pipeline.output import Output
    from pipeline.retention import clean

    try:
        return clean.sentence(clean.apply(Config.model_validate_json(configuration), Output(folder))), 0
    except OutputBusy:
        return "Nothing was removed, as a run holds the output folder; the next tick tries again.", OutputBusy.exit_code
    except GraftError as error:
        return f"Nothing more was removed: {error}", error.exit_code
    # Whatever it is, the tick was what it was.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return f"Housekeeping failed with {type(error).__name__}: {lines[0]}", 1


def _end_with_the_supervisor() -> None:
    """Nothing is written to the standard input; it ends when the supervisor does, however that happens."""
    os.read(0, 1)
    # At any moment: what is half done, the next housekeeping goes on with.
    os._exit(1)


if __name__ == "__main__":
    main()
