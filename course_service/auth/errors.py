"""Why a caller is refused before its request is read. Neither the course nor its being there changes any of these."""

from course_service.errors import CourseError


class CredentialsMissing(CourseError):
    """The caller has shown neither a certificate nor a token, or only such as nothing is configured for."""

    reason = "CREDENTIALS_MISSING"

    def __init__(self) -> None:
        super().__init__("The call has no credentials; send a token as Authorization: Bearer, or use a certificate.")


class CredentialsAmbiguous(CourseError):
    """The caller has shown more than one of certificates and tokens."""

    reason = "CREDENTIALS_AMBIGUOUS"

    def __init__(self) -> None:
        super().__init__("The call has more than one credential; send a certificate or one token.")


class CertificateInvalid(CourseError):
    """The certificate has no name, or several, or its time is over."""

    reason = "CERTIFICATE_INVALID"

    def __init__(self) -> None:
        super().__init__("The client's certificate does not have exactly one usable name, or its time is over.")


class TokenMalformed(CourseError):
    """The header is not `Bearer` and a token in the compact form of at most 4,096 characters."""

    reason = "TOKEN_MALFORMED"

    def __init__(self) -> None:
        super().__init__("The Authorization header is not Bearer and a signed JWT of at most 4096 characters.")


class TokenKeyUnknown(CourseError):
    """The token names a key that is not in the key set."""

    reason = "TOKEN_KEY_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("The key that the token names is not known.")


class TokenExpired(CourseError):
    """The token's time is over."""

    reason = "TOKEN_EXPIRED"

    def __init__(self) -> None:
        super().__init__("The token has expired.")


class TokenInvalid(CourseError):
    """The token's signature is wrong, or it is for somebody else, or a claim is missing or wrong."""

    reason = "TOKEN_INVALID"

    def __init__(self) -> None:
        super().__init__("The token is not valid here.")


class PermissionDenied(CourseError):
    """The caller is known, and may not call the method."""

    reason = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__("The caller may not call this method.")
