"""Why the service or one of its commands can fail to start. The health check loads this, and not all of `errors.py`."""


class StartupError(Exception):
    """The service cannot start; the message says in one line why and what to do."""
