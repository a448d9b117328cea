"""Why the service or one of its commands can fail to start. Apart from `errors.py`: the health check loads this only."""


class StartupError(Exception):
    """The service cannot start; the message says in one line why and what to do."""
