"""Where APScheduler remembers the next tick: a file of SQLite, made anew from plan and ticks if it is lost."""

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from sqlalchemy import URL, create_engine, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

JOB = "tick"
TABLE = "apscheduler_jobs"
READ_WITHIN = 2.0  # seconds


def open_store(path: Path) -> SQLAlchemyJobStore:
    """A store that can be read; a damaged one begins anew."""
    try:
        return _opened(path)
    except DatabaseError:
        remove(path)
        return _opened(path)


def remove(path: Path) -> None:
    """Removes the file, and what SQLite may have left beside it."""
    for file in (path, path.with_name(f"{path.name}-journal")):
        file.unlink(missing_ok=True)


def _opened(path: Path) -> SQLAlchemyJobStore:
    # The file is opened anew each time: it may be removed, or lie on a disk that comes back.
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    store = SQLAlchemyJobStore(engine=engine, tablename=TABLE)
    store.jobs_t.create(engine, checkfirst=True)
    with engine.connect() as connection:
        connection.execute(select(store.jobs_t)).all()
    return store


def stored_next(path: Path) -> datetime | None:
    """The next tick as it is remembered, in UTC; None where it is not, or cannot be read. Nothing is written."""
    question = f"SELECT next_run_time FROM {TABLE} WHERE id = ?"
    try:
        # A URI, so that it can be opened for reading alone.
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", READ_WITHIN, uri=True)) as connection:
            row = connection.execute(question, (JOB,)).fetchone()
        return datetime.fromtimestamp(row[0], UTC) if row and row[0] is not None else None
    except (sqlite3.Error, ValueError, TypeError, OverflowError, OSError):
        return None
