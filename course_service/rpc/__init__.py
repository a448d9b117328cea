"""The gRPC face: `course.v1.CourseService`, with health and reflection. Knows nothing of SQLAlchemy."""
