"""Where courses are kept: SQLAlchemy on SQLite and PostgreSQL. Knows nothing of gRPC or HTTP."""
