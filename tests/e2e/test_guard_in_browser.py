"""The guard from a real browser: a page on another port must not read, post or upload."""

import http.server
import threading

import pytest

ATTACKS = """async (target) => {
  const attempts = {
    read: () => fetch(target + "/api/projects", {credentials: "include"}).then((r) => r.text()),
    read_blind: () => fetch(target + "/api/projects", {credentials: "include", mode: "no-cors"}).then((r) => r.type),
    post: () => fetch(target + "/api/projects", {method: "POST", credentials: "include", mode: "no-cors",
      headers: {"Content-Type": "text/plain"}, body: '{"name": "planted"}'}).then((r) => r.type),
    upload: () => {
      const form = new FormData();
      form.append("files", new Blob(["planted"]), "planted.txt");
      return fetch(target + "/gradio_api/upload", {method: "POST", credentials: "include", mode: "no-cors", body: form})
        .then((r) => r.type);
    },
    image: () => new Promise((done, fail) => {
      const image = new Image();
      image.onload = () => done("loaded");
      image.onerror = () => fail(new Error("no image"));
      image.src = target + "/favicon.ico";
    }),
    script: () => new Promise((done, fail) => {
      const script = document.createElement("script");
      script.onload = () => done("loaded");
      script.onerror = () => fail(new Error("no script"));
      script.src = target + "/widgets/palette.js";
      document.head.append(script);
    }),
    frame: () => new Promise((done) => {
      const frame = document.createElement("iframe");
      frame.onload = () => {
        try { done(frame.contentDocument ? "readable" : "refused"); } catch (error) { done("refused"); }
      };
      frame.src = target + "/";
      document.body.append(frame);
    }),
    socket: () => new Promise((done, fail) => {
      const socket = new WebSocket(target.replace("http", "ws") + "/gradio_api/queue/join");
      socket.onopen = () => done("open");
      socket.onerror = () => fail(new Error("closed"));
    }),
  };
  const results = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { results[name] = await attempt(); } catch (error) { results[name] = "refused"; }
  }
  return results;
}"""


@pytest.fixture(scope="module")
def other_port():
    """Another local server, as a hostile page on this machine would have."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name http.server asks for
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title>")

        def log_message(self, *arguments) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def slugs_of(api):
    """What there is; how far its jobs are may change meanwhile."""
    return [project["slug"] for project in api.get("/api/projects").json()["projects"]]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same site, other port", "other site"])
def test_page_on_another_port_cannot_read_post_or_upload(browser, app_server, api, other_port, host):
    before = slugs_of(api)
    context = browser.new_context()
    context.add_cookies([app_server.cookie])
    page = context.new_page()
    page.goto(f"http://{host}:{other_port}/")

    results = page.evaluate(ATTACKS, app_server.url)

    # The browser keeps the answers from the page; that nothing was done the app's own log shows.
    assert {name: result for name, result in results.items() if result != "refused"} == {}
    log = (app_server.workspace / ".anchorage" / "logs" / "app.log").read_text()
    for request in ("GET /api/projects", "POST /api/projects", "POST /gradio_api/upload", "GET /widgets/palette.js"):
        assert f"refused {request}" in log
    assert all(frame.url != f"{app_server.url}/" or not frame.content().count("gradio-app") for frame in page.frames)
    assert slugs_of(api) == before
    assert not list(app_server.workspace.rglob("planted.txt"))
    context.close()


def test_browser_without_the_link_sees_how_to_get_in(browser, app_server):
    context = browser.new_context(base_url=app_server.url)
    page = context.new_page()
    assert page.goto("/").status == 401
    assert "launch.py" in page.inner_text("main")
    context.close()


def test_link_lets_a_browser_in_once_and_leaves_the_address(browser, app_server):
    from app.api.access import Access
    from app.store.files import Workspace

    code = Access(Workspace(app_server.workspace)).mint_code()
    first, second = browser.new_context(base_url=app_server.url), browser.new_context(base_url=app_server.url)
    page = first.new_page()
    page.goto(f"/?token={code}")
    page.wait_for_selector("anchorage-nav[data-ready]")
    assert page.url == f"{app_server.url}/"
    assert second.new_page().goto(f"/?token={code}").status == 401
    first.close()
    second.close()
