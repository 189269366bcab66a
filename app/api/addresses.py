"""Which names and addresses are this server's own, and how a link to it is written."""

import ipaddress
import socket
from urllib.parse import urlencode

import psutil

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def own_hosts(host: str, port: int) -> frozenset[str]:
    """The exact Host headers of a server on ``host``: loopback, the host, and for 0.0.0.0 all own addresses."""
    names = {*LOOPBACK_NAMES, bracketed(host)}
    if is_any(host):
        names |= {bracketed(address) for address in _interface_addresses()} | {socket.gethostname()}
    headers = {f"{name}:{port}" for name in names}
    return frozenset(name.lower() for name in (headers | names if port == 80 else headers))


def is_any(host: str) -> bool:
    """Whether the host means every interface."""
    return host in ("0.0.0.0", "::")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server listening on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def link(host: str, port: int, code: str = "", page: str = "") -> str:
    """The address a person opens; ``code`` lets the browser in once and leads on to ``page``, a path with its query."""
    name = "127.0.0.1" if is_any(host) else bracketed(host)
    query = {name: value for name, value in (("token", code), ("next", page)) if value}
    return f"http://{name}:{port}/" + (f"?{urlencode(query)}" if query else "")


def bracketed(host: str) -> str:
    """An IPv6 address in the brackets that an address bar wants."""
    return f"[{host}]" if ":" in host else host


def _interface_addresses() -> set[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in families
    }
