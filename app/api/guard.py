"""The guard in front of the whole app, as plain ASGI: any web page can reach a local server, ours must not answer it.

In order: the Host must be one of ours, whole (a name an attacker points at this machine is not); an Origin, where
there is one, must be the very host asked; a request that the browser marks as coming from another site or another
port is refused, except opening the front page; then the cookie or the bearer token. Responses are never buffered.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

import orjson

from app.api.access import Access

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

# Everything comes from this server: the policy also keeps a script that slipped in from sending anything out.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": CONTENT_POLICY,
}
COOKIE_LIFE_S = 180 * 24 * 3600


class Guard:
    """Wrap ``app``; ``hosts`` are the exact Host headers that are ours, e.g. ``127.0.0.1:7860``."""

    def __init__(self, app: AsgiApp, access: Access, hosts: Iterable[str], port: int) -> None:
        self.app = app
        self.access = access
        self.hosts = frozenset(host.lower() for host in hosts)
        self.cookie = f"anchorage-{port}"  # cookies are shared by all ports of a host

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] not in ("http", "websocket"):
            raise RuntimeError(f"the guard knows http and websocket, not {scope['type']!r}")
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            logger.warning("refused %s %s: %s", scope.get("method", "websocket"), scope["path"], refusal[1])
            return await _refuse(scope, headers, send, *refusal)
        code = _link_code(scope)
        if code is not None and (self.access.redeem(code) or self._is_known(headers)):
            return await self._let_in(scope, send)
        if not self._is_known(headers):
            return await _refuse(scope, headers, send, 401, *_NO_TOKEN)
        return await self.app(scope, receive, _with_security_headers(send))

    def _refusal(self, scope: Message, headers: dict[str, list[str]]) -> tuple[int, str, str] | None:
        """Status, error and hint for a request that is not from our own pages; None when it may be."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "This address is not one Anchorage answers to.", "Open the link that launch.py printed."
        origins = headers.get("origin", [])
        if len(origins) > 1 or (origins and origins[0].lower() != f"http://{hosts[0].lower()}"):
            return 403, "Requests from other web pages are refused.", "Use Anchorage from its own pages."
        site = headers.get("sec-fetch-site", ["none"])
        if site[-1].lower() not in ("none", "same-origin") and not _opens_front_page(scope, headers):
            return 403, "Requests from other web pages are refused.", "Use Anchorage from its own pages."
        return None

    def _is_known(self, headers: dict[str, list[str]]) -> bool:
        given = _bearer(headers) or _cookie(headers, self.cookie)
        return bool(given) and hmac.compare_digest(given.encode(), self.access.token.encode())

    async def _let_in(self, scope: Message, send: Send) -> None:
        """Set the cookie and go on from a page of ours: after a redirect from another site it would be withheld."""
        onward = f'<meta http-equiv="refresh" content="0;url={escape(_next_page(scope))}">'
        page = _PAGE.format(title="Anchorage", heading="Opening Anchorage …", text="", extra=onward)
        cookie = f"{self.cookie}={self.access.token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={COOKIE_LIFE_S}"
        await _send_page(send, 200, page, {"set-cookie": cookie, "cache-control": "no-store"})


def _opens_front_page(scope: Message, headers: dict[str, list[str]]) -> bool:
    """A person following a link from elsewhere to the front page: a top-level navigation that changes nothing."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"] == "/"
        and headers.get("sec-fetch-mode") == ["navigate"]
        and headers.get("sec-fetch-dest") == ["document"]
    )


def _headers(scope: Message) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def _link_code(scope: Message) -> str | None:
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
        return None
    codes = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
    return codes[0] if codes else None


def _next_page(scope: Message) -> str:
    """The page a link leads on to; never another site's, which ``//name`` and ``/\\name`` would be."""
    pages = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("next", [""])
    path, _, query = pages[0].lstrip("/\\").partition("?")
    return f"/{quote(path)}" + (f"?{urlencode(parse_qsl(query))}" if query else "")


def _bearer(headers: dict[str, list[str]]) -> str:
    kind, _, token = headers.get("authorization", [""])[0].partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: dict[str, list[str]], name: str) -> str:
    for line in headers.get("cookie", []):
        try:
            morsel = SimpleCookie(line).get(name)
        except CookieError:
            continue
        if morsel is not None:
            return morsel.value
    return ""


def _with_security_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if _is_kept(name)]
            message = {**message, "headers": kept + _SECURITY_PAIRS}
        await send(message)

    return sending


def _is_kept(name: bytes) -> bool:
    """Drop what is set anew here, and any grant to other origins."""
    lower = name.decode("latin-1").lower()
    return lower not in SECURITY_HEADERS and not lower.startswith("access-control-")


_SECURITY_PAIRS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


async def _refuse(
    scope: Message, headers: dict[str, list[str]], send: Send, status: int, error: str, hint: str
) -> None:
    """A page for a person, JSON for a script, a closed door for a websocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error})
    elif "text/html" in headers.get("accept", [""])[0] and scope["method"] == "GET":
        page = _PAGE.format(title="Anchorage", heading=escape(error), text=escape(hint), extra=_TRY_AGAIN)
        await _send_page(send, status, page, {"cache-control": "no-store"})
    else:
        body = orjson.dumps({"error": error, "hint": hint})
        await _send(send, status, body, {"content-type": "application/json", "cache-control": "no-store"})


async def _send_page(send: Send, status: int, page: str, headers: dict[str, str]) -> None:
    await _send(send, status, page.encode(), {"content-type": "text/html; charset=utf-8", **headers})


async def _send(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs += [(b"content-length", str(len(body)).encode()), *_SECURITY_PAIRS]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


_NO_TOKEN = (
    "Anchorage is running, but this browser has not been let in yet.",
    "Open the link that launch.py printed in the terminal. Each link works once; "
    "run launch.py again on the same projects folder for a fresh one.",
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 16px/1.5 system-ui, sans-serif; }}
main {{ max-width: 460px; padding: 24px; }} h1 {{ font-size: 20px; }} p {{ opacity: .8; }}
</style></head><body><main><h1>{heading}</h1><p>{text}</p>{extra}</main></body></html>"""
_TRY_AGAIN = '<p><a href="/">Try again</a></p>'
