"""What happens around every call, by gRPC and HTTP alike."""
