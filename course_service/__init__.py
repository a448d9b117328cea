"""The Course service: owns the courses of the education platform, by gRPC and HTTP."""
