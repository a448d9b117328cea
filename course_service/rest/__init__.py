"""The HTTP face: the same use cases as JSON. Knows nothing of SQLAlchemy."""
