"""Whether this process can do its work: what grpc.health.v1 and HTTP's /readyz report."""

import logging
import threading
import time

from course_service.call import Call, deadline_after, working_on
from course_service.errors import DatabaseUnavailable
from course_service.guard.internal import report
from course_service.startup import StartupError
from course_service.store.database import Database

INTERVAL_SECONDS = 1.0
"""How long after one look the next one is taken."""
LOOK_SECONDS = 1.0
"""How long the database may take to respond to a look."""
PATIENCE = 2
"""How many looks in a row must fail before the process counts as not ready: one slow look is no outage."""
MAX_AGE_SECONDS = 3.0
"""How old the last look may be: the thread that looks may be stuck in the driver itself."""
_TICK_SECONDS = 0.25

_log = logging.getLogger(__name__)


class Health:
    """Looks at the database every second, from a thread of its own.

    `is_ready` is whether the database can be used and written to, and the process is not about to stop.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._problem = "the database has not been looked at yet"
        self._failed_looks = PATIENCE
        self._looked_at = 0.0
        self._was_ready = False
        self._stopping = threading.Event()
        self.changed = threading.Condition()
        """Notified when `is_ready` has changed, or the process begins to stop."""

    @property
    def is_ready(self) -> bool:
        """Whether the process can do its work now."""
        return (
            self._failed_looks < PATIENCE
            and time.monotonic() - self._looked_at <= MAX_AGE_SECONDS
            and not self._stopping.is_set()
        )

    @property
    def is_stopping(self) -> bool:
        """Whether the process is about to stop."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Take a look, and go on looking."""
        self.look()
        self.report()
        threading.Thread(target=self._keep_looking, name="health", daemon=True).start()
        threading.Thread(target=self._keep_reporting, name="readiness", daemon=True).start()

    def stop(self) -> None:
        """Be not ready from now on."""
        self._stopping.set()
        self.report()

    def look(self) -> None:
        """Look at the database."""
        problem = self._look()
        self._failed_looks = self._failed_looks + 1 if problem else 0
        self._problem = problem
        self._looked_at = time.monotonic()

    def _look(self) -> str:
        """Return what is wrong with the database, in words."""
        try:
            with working_on(Call(deadline=deadline_after(LOOK_SECONDS))):
                self._database.check()
        except DatabaseUnavailable as error:
            return f"the database of COURSE_DATABASE_URL does not respond: {error.cause}"
        except StartupError as error:
            return str(error)
        except Exception as exception:  # or the thread would end, and what it saw last would stay
            return f"internal error {report(exception).metadata['errorId']}"
        return ""

    def _keep_looking(self) -> None:
        while not self._stopping.wait(INTERVAL_SECONDS):
            self.look()

    def _keep_reporting(self) -> None:
        # Apart from the looks, because a look can be stuck.
        while not self._stopping.wait(_TICK_SECONDS):
            self.report()

    def report(self) -> None:
        """Say it in the log and to who waits if the process has become ready or is no longer."""
        is_ready = self.is_ready
        if is_ready == self._was_ready and not self._stopping.is_set():
            return
        self._was_ready = is_ready
        if is_ready:
            _log.info("serving")
        elif not self._stopping.is_set():
            _log.warning("not serving: %s", self._problem or "a look at the database does not end")
        with self.changed:
            self.changed.notify_all()
