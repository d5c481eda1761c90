"""Tells addresses that clients named that their job is over: signed, and to public addresses only.

Signatures are those of Standard Webhooks (github.com/standard-webhooks), whose libraries can check them: the header
``webhook-signature`` is ``v1,`` and the Base64 of an HMAC-SHA256 of ``id.timestamp.body``.
"""

import hmac
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import anyio
import httpcore
from httpcore import AsyncNetworkStream

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

TIMEOUT_S = 10.0
BACK_OFF_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds from one try to the next; after the last, the callback has failed."""

TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"))
"""IPv6 addresses behind which any IPv4 address may be (NAT64, 6to4)."""


class NotPublic(Exception):
    """Nothing is sent there. The message says why."""


async def check_address(url: str, also: Iterable[Network] = ()) -> None:
    """Raises NotPublic unless all that the host of ``url`` stands for is public, or in one of the networks ``also``."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise NotPublic("the address must hold no user name or password")
    await _addresses(parts.hostname or "", parts.port or 0, tuple(also))


async def deliver(
    url: str, event_id: str, body: bytes, secret: str, also: Iterable[Network] = (), timeout_s: float = TIMEOUT_S
) -> bool:
    """Whether the receiver took it, that is, answered 2xx; redirects are not followed.

    ``secret``: ``whsec_`` and the Base64 of the key.
    """
    headers = signed(event_id, body, secret, int(time.time()))
    failures = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, TimeoutError, OSError)
    try:
        with anyio.fail_after(timeout_s):
            async with (
                httpcore.AsyncConnectionPool(network_backend=_PublicOnly(tuple(also))) as pool,
                pool.stream("POST", url, headers=headers, content=body) as response,
            ):
                return 200 <= response.status < 300
    except (*failures, NotPublic):
        return False


def signed(event_id: str, body: bytes, secret: str, timestamp_s: int) -> dict[str, str]:
    """The headers of a callback."""
    key = b64decode(secret.removeprefix("whsec_"))
    signature = hmac.digest(key, f"{event_id}.{timestamp_s}.".encode() + body, "sha256")
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


class _PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to the very addresses that it looked at, so that a name can't mean another one a moment later."""

    def __init__(self, also: Sequence[Network]) -> None:
        self._also = also
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        addresses = await _addresses(host, port, self._also)
        return await self._inner.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)


async def _addresses(host: str, port: int, also: Sequence[Network]) -> list[Address]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotPublic(f"{host} has no address") from None
    addresses = [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
    for address in addresses:
        if not _allowed(address, also):
            raise NotPublic(f"{address} is not a public address, which callbacks must go to")
    return addresses


def _allowed(address: Address, also: Sequence[Network]) -> bool:
    plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
    if any(plain in network for network in also):
        return True
    translated = any(plain in network for network in TRANSLATED)
    return plain.is_global and not plain.is_multicast and not translated
