"""Where this machine keeps the certificates of the authorities it trusts, for workers that may reach others over TLS."""

import os
from collections.abc import Mapping
from typing import Final

# One file with all of them: Debian and Alpine, Fedora, openSUSE, and where OpenSSL itself looks.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def certificate_bundle(environ: Mapping[str, str]) -> str | None:
    """The file with the trusted certificates: what SSL_CERT_FILE says, or where the distributions put it.

    None where there is none; then a worker's TLS clients trust what they bring themselves, or nobody.
    """
    named = environ.get("SSL_CERT_FILE")
    candidates = _BUNDLES if not named else (named,)
    return next((place for place in candidates if place.startswith("/") and os.path.isfile(place)), None)
