"""Where Apache Beam runs: what `runner.beam` stands for. Nothing heavy is imported."""

from components.causes import WORKER_ENDED

BEAM_ARGUMENTS = {
    # Named, because Beam's default tries to download another runner first.
    "local": ["--runner=FnApiRunner"],
    "processes": ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=0"],
}


def notice_dead_workers() -> None:
    """Has Beam raise where a worker process ends too early: it would wait for its answer for ever.

    A system that is short of memory ends processes, and a library may crash on a picture. Nothing reads that worker's
    answers any more then, and whoever waits for one must be told. (Seen with Beam 2.77.)
    """
    from apache_beam.runners.portability.fn_api_runner.worker_handlers import BeamFnControlServicer, ControlConnection

    read, close = ControlConnection._read, ControlConnection.close
    if read.__name__ == "read_and_tell":
        return

    def read_and_tell(connection: ControlConnection) -> None:
        try:
            read(connection)
        finally:
            # After an orderly end nobody waits.
            connection.abort(RuntimeError(WORKER_ENDED))

    def close_also_late(connection: ControlConnection) -> None:
        # Another worker may not have come up yet when the pipeline ends over this one. Beam would wait for its end, and
        # it for work.
        connection.push(BeamFnControlServicer._DONE_MARKER)
        close(connection)

    ControlConnection._read, ControlConnection.close = read_and_tell, close_also_late
