"""Every hostile request that a local server must not answer, and the ordinary ones that it must."""

import asyncio
from urllib.parse import urlencode

import httpx
import pytest

from app.api.access import Access
from app.api.addresses import own_hosts
from app.api.guard import CONTENT_POLICY, Guard
from app.store.files import Workspace

PORT = 7860
OURS = f"127.0.0.1:{PORT}"
NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


class Inside:
    """An app that answers everything and remembers that it was reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        self.reached.append(scope["path"])
        headers = [(b"access-control-allow-origin", b"*"), (b"x-frame-options", b"ALLOWALL"), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await send({"type": "http.response.body", "body": b"second"})


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def access(tmp_path) -> Access:
    return Access(Workspace(tmp_path))


@pytest.fixture
def ask(inside, access):
    guard = Guard(inside, access, own_hosts("127.0.0.1", PORT), PORT)

    def ask(method="GET", path="/api/projects", host=OURS, is_known=True, **headers) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if is_known:
            given.setdefault("cookie", f"anchorage-{PORT}={access.token}")

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=guard)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers={**given, "host": host})

        return asyncio.run(send())

    ask.guard = guard
    return ask


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",  # a name an attacker pointed at this machine
        "evil.com:7860",
        "127.0.0.1.evil.com:7860",  # starts like ours
        "evil-127.0.0.1:7860",  # ends like ours
        "127.0.0.1",  # another server's port
        "127.0.0.1:7861",
        "127.0.0.1:7860.evil.com",
        "user@127.0.0.1:7860",
        "127.0.0.1:7860,evil.com",
        "0.0.0.0:7860",  # reaches loopback from a web page in some browsers
        "[::ffff:127.0.0.1]:7860",
        "",
    ],
)
def test_foreign_host_is_misdirected(ask, inside, host):
    assert ask(host=host).status_code == 421
    assert not inside.reached


def test_two_hosts_are_misdirected(ask, inside):
    sent = []

    async def collect(message) -> None:
        sent.append(message)

    hosts = [(b"host", OURS.encode()), (b"host", b"evil.com")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": hosts}
    asyncio.run(ask.guard(scope, None, collect))
    assert sent[0]["status"] == 421
    assert not inside.reached


@pytest.mark.parametrize(
    "origin",
    [
        "null",  # a sandboxed frame, a file
        "http://evil.com",
        "http://127.0.0.1:8000",  # another server on this machine
        "http://localhost:7860",  # ours by another name: not the page that asks
        "https://127.0.0.1:7860",
        "http://127.0.0.1:7860.evil.com",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_foreign_origin_is_forbidden(ask, inside, origin, method):
    assert ask(method, origin=origin).status_code == 403
    assert not inside.reached


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "anything new"])
@pytest.mark.parametrize(
    ("method", "path", "extra"),
    [
        ("GET", "/api/projects", {}),
        ("GET", "/img/demo/1", {"sec-fetch-dest": "image", "sec-fetch-mode": "no-cors"}),
        ("POST", "/gradio_api/upload", {}),
        ("POST", "/", NAVIGATION),  # a form of another page
        ("GET", "/data", NAVIGATION),  # only the front page may be linked to
        ("GET", "/", {"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate"}),
        ("GET", "/", {"sec-fetch-dest": "document", "sec-fetch-mode": "no-cors"}),
    ],
)
def test_request_of_another_site_is_forbidden(ask, inside, site, method, path, extra):
    assert ask(method, path, **{"sec-fetch-site": site, **extra}).status_code == 403
    assert not inside.reached


def test_front_page_may_be_opened_from_elsewhere(ask):
    assert ask(path="/", **{"sec-fetch-site": "cross-site", **NAVIGATION}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": "anchorage-7860=wrong"},
        {"cookie": "anchorage-7860="},
        {"cookie": "anchorage-7861={token}"},  # another app's
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Basic {token}"},
        {"cookie": "anchorage-7860=\u00e9"},
    ],
)
def test_without_the_secret_nothing_is_answered(ask, access, inside, headers):
    given = {name: value.format(token=access.token).encode("latin-1") for name, value in headers.items()}
    response = ask(is_known=False, **given)
    assert response.status_code == 401
    assert set(response.json()) == {"error", "hint"}
    assert not inside.reached


def test_a_person_without_the_secret_gets_a_page_that_says_what_to_do(ask):
    response = ask(path="/", is_known=False, accept="text/html,*/*")
    assert response.status_code == 401
    assert response.headers["content-type"].startswith("text/html")
    assert "launch.py" in response.text


@pytest.mark.parametrize("header", ["cookie", "bearer"])
@pytest.mark.parametrize("host", [OURS, f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_with_the_secret_all_pass(ask, access, header, host):
    headers = {} if header == "cookie" else {"is_known": False, "authorization": f"Bearer {access.token}"}
    response = ask("PUT", host=host, origin=f"http://{host.lower()}", **{"sec-fetch-site": "same-origin"}, **headers)
    assert (response.status_code, response.text) == (200, "first second")


def test_link_sets_the_cookie_once(ask, access, inside):
    code = access.mint_code()
    response = ask(path=f"/?token={code}", is_known=False, **{"sec-fetch-site": "cross-site", **NAVIGATION})
    assert response.status_code == 200
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"anchorage-{PORT}={access.token};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert not inside.reached  # the page moves on by itself, without the code in its address
    assert ask(path=f"/?token={code}", is_known=False).status_code == 401


def test_used_link_is_harmless_for_a_browser_that_is_in(ask):
    assert ask(path="/?token=used").status_code == 200


@pytest.mark.parametrize("path", ["/api/projects", "/data"])
def test_link_works_on_the_front_page_only(ask, access, path):
    assert ask(path=f"{path}?token={access.mint_code()}", is_known=False).status_code == 401


@pytest.mark.parametrize("is_known", [True, False], ids=["answered", "refused"])
def test_every_response_carries_the_security_headers_and_no_grant_to_others(ask, is_known):
    headers = ask(is_known=is_known).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers.get_list("x-frame-options") == ["DENY"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"] == CONTENT_POLICY
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("host", "origin", "cookie", "is_open"),
    [
        (OURS, f"http://{OURS}", True, True),
        (OURS, "http://evil.com", True, False),
        ("evil.com", f"http://{OURS}", True, False),
        (OURS, f"http://{OURS}", False, False),
    ],
    ids=["ours", "foreign origin", "foreign host", "no secret"],
)
def test_websocket_is_guarded_too(ask, access, inside, host, origin, cookie, is_open):
    sent = []

    async def collect(message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    if cookie:
        headers.append((b"cookie", f"anchorage-{PORT}={access.token}".encode()))
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": headers}
    asyncio.run(ask.guard(scope, None, collect))
    assert bool(inside.reached) == is_open
    if not is_open:
        assert [message["type"] for message in sent] == ["websocket.close"]


def test_body_is_passed_on_piece_by_piece(ask, access):
    pieces = []

    async def collect(message) -> None:
        pieces.append(message.get("body"))

    headers = [(b"host", OURS.encode()), (b"authorization", f"Bearer {access.token}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": headers}
    asyncio.run(ask.guard(scope, None, collect))
    assert pieces == [None, b"first ", b"second"]


@pytest.mark.parametrize(
    ("following", "target"),
    [
        ("/train?project=demo&run=1", "/train?project=demo&amp;run=1"),
        ("", "/"),
        ("https://evil.example/", "/https%3A//evil.example/"),  # stays a path of ours
        ("//evil.example/x", "/evil.example/x"),  # would be another host
        ("/\\evil.example", "/evil.example"),  # browsers read a backslash as a slash
        ('/"><script>alert(1)</script>', "/%22%3E%3Cscript%3Ealert%281%29%3C/script%3E"),
    ],
)
def test_link_leads_on_to_pages_of_ours_only(ask, access, following, target):
    response = ask(path=f"/?{urlencode({'token': access.mint_code(), 'next': following})}", is_known=False)
    assert f'content="0;url={target}"' in response.text
