"""Where Apache Beam runs: what `runner.beam` stands for. Nothing heavy is imported."""

import threading

from components.causes import WORKER_ENDED

BEAM_ARGUMENTS = {
    # Named, because Beam's default tries to download another runner first.
    "local": ["--runner=FnApiRunner"],
    "processes": ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=0"],
}


def notice_dead_workers() -> None:
    """Has Beam raise where a worker process ends too early: it would wait for its answers for ever.

    A system that is short of memory ends processes, some before they have come up, and a library may crash on a
    picture. Whatever was asked, or is asked later, is answered with an error then. (Seen with Beam 2.77.)

    Raises:
      ImportError, AttributeError: Beam is another one, and has to be looked at again.
    """
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    connections, handlers = worker_handlers.ControlConnection, worker_handlers.SubprocessSdkWorkerHandler
    if connections.__name__ == "ToldOfTheEnd":
        return
    start_worker, done = handlers.start_worker, worker_handlers.BeamFnControlServicer._DONE_MARKER

    class ToldOfTheEnd(connections):
        """A connection that answers for its worker when that has ended."""

        ended = False

        def push(self, request):
            future = super().push(request)
            if self.ended and future is not None:
                self._answer(request.instruction_id)
            return future

        def end(self) -> None:
            self.ended = True
            for instruction in list(self._futures_by_id):
                self._answer(instruction)

        def _answer(self, instruction: str) -> None:
            # By now it may have been answered.
            if future := self._futures_by_id.pop(instruction, None):
                future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=WORKER_ENDED))

        def close(self) -> None:
            # A worker may not have come up yet when the pipeline ends over another one. Beam would wait for its end,
            # and it for work.
            self.push(done)
            super().close()

    def start_and_watch(handler: worker_handlers.SubprocessSdkWorkerHandler) -> None:
        start_worker(handler)

        def watch() -> None:
            handler.worker_thread.join()
            handler.control_conn.end()

        threading.Thread(target=watch, daemon=True).start()

    worker_handlers.ControlConnection, handlers.start_worker = ToldOfTheEnd, start_and_watch
