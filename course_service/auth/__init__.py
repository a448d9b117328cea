"""Who calls, and what they may: TLS, certificates, tokens, policy."""
