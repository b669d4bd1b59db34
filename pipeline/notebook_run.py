"""One run for `pipeline.notebook`, in a process that ends with the notebook that asked for it.

    python -m pipeline.notebook_run REQUEST ANSWER

REQUEST is JSON: `images`, `output`, `config`, `overrides`. The file ANSWER takes the summary, or `error` and
`exit_code`.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from components.errors import GraftError
from components.files import write_whole


def main() -> None:
    """Runs what was asked for; what goes wrong is in the answer."""
    request, answer = json.loads(sys.argv[1]), Path(sys.argv[2])
    # A shell that starts something in the background has it ignore this signal, and whatever it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_the_notebook, daemon=True).start()
    try:
        said = _run(request)
    except GraftError as error:
        said = {"error": str(error), "exit_code": error.exit_code}
    except KeyboardInterrupt:
        sys.exit(1)
    # The last resort, as for the command: what goes wrong inside a run never gets here.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        said = {"error": f"Unexpected {type(error).__name__}: {lines[0]}", "exit_code": 1}
    write_whole(answer, json.dumps(said))


def _run(request: dict[str, Any]) -> dict[str, Any]:
    from pipeline import config, local

    file = Path(request["config"]) if request["config"] else None
    return local.run(config.load(file, request["overrides"]), request["images"], Path(request["output"]))


def _end_with_the_notebook() -> None:
    """Nothing is written to the standard input; it ends when the cell is interrupted, or the notebook is gone."""
    # Not by way of `sys.stdin`, whose lock a thread that waits would hold while the interpreter shuts down.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
