"""Warnings reach whoever heeds them, once; and the log of a container where nobody does."""

import logging
import threading

from components import progress


def test_warning_is_told_once_and_anew_in_the_next_run():
    for _ in range(2):
        told = []
        with progress.heeded(told.append):
            progress.warn("Look.")
            progress.warn_of(["Look.", "Look there."])
        assert told == ["Look.", "Look there."]


def test_warning_goes_to_logging_where_nobody_heeds(caplog):
    with progress.heeded(lambda sentence: None):
        pass
    with caplog.at_level(logging.WARNING):
        progress.warn("100 % of it.")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("graft", "100 % of it.")]


def test_count_is_right_whatever_threads_advance_it():
    progress.start(8000)
    threads = [threading.Thread(target=lambda: [progress.advance() for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.now().done == 8000


def test_new_count_forgets_what_was_said_of_the_last():
    progress.start(10, "frozen", at_most=True)
    progress.say("frozen, epoch 1 of 2", "eval accuracy 0.9")
    progress.within("step 1 of 5")
    before = progress.now()
    progress.start(None, "exporting")
    state = progress.now()
    assert state.count == before.count + 1
    assert (state.text, state.within, state.detail, state.said, state.at_most) == ("exporting", "", "", False, False)
