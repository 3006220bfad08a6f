# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that apps.py tries: how each is installed and run, what a visitor does, and what comes of it.

In commands and files @port@ is the server's port, @host@ its plain name, @domain@ the tunnel host's domain and @folder@
where it is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

WORKS = "works"
# A file that a page names by a path of its own host.
FILE = r"""(?:src|href)=["']?((?!https?:|//|data:|#)[^"' >]+\.(?:m?js|css|ico|png|svg|txt)[^"' >]*)"""


@dataclass(frozen=True)
class Form:
    """A request that changes something, sent as the visited page would send it."""

    path: str
    fields: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    method: str = "POST"
    body: str | None = None
    expected: tuple[int, ...] = (200,)
    what: str = "form"


def ways(plain: str = WORKS, local: str = WORKS, port: str = WORKS, setting: str | None = None) -> dict[str, str]:
    """What comes of each way, which is that it works where nothing else is said."""
    return {"plain": plain, "local": local, "port": port} | ({"setting": setting} if setting else {})


@dataclass(frozen=True)
class App:
    """A server."""

    name: str
    label: str
    port: int
    command: str
    expected: dict[str, str] = field(default_factory=ways)
    # What is installed; the first one is the server. With neither it is Python's own.
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    node_type: str = "module"
    files: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = 120
    # What a visitor does.
    page: str = "/"
    text: str = ""
    asset: str = FILE
    never: str = ""
    takes: dict[str, str] = field(default_factory=dict)
    takes_from: str = ""
    forms: tuple[Form, ...] = ()
    socket: str = ""
    protocols: tuple[str, ...] = ()
    says: bool = False
    # What makes it work at its plain name, and what is then different from the above.
    setting: str = ""
    with_setting: dict = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The server's version."""
        found = re.search(r"(?:==|.@)([\w.-]+)", (*self.pip, *self.npm, "")[0])
        return found[1] if found else ""


PAGE = '<!doctype html><title>x</title><link rel="stylesheet" href="/static/a.css"><p>It runs.</p>'
CSS = {"static/a.css": "p { color: green }\n"}

FLASK = f"""
from flask import Flask, redirect, request, url_for
app = Flask(__name__)
@app.get("/")
def page(): return redirect(url_for("there", _external=True))
@app.get("/there")
def there(): return {PAGE!r}
@app.post("/form")
def form(): return "saved " + request.form["word"]
"""
SAVED = (Form("/form", {"word": "it"}, text="saved it"),)

DJANGO = f"""
import os, sys
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path
settings.configure(
    DEBUG=True, SECRET_KEY="test", ROOT_URLCONF=__name__, STATIC_URL="/static/", STATICFILES_DIRS=["static"],
    INSTALLED_APPS=["django.contrib.staticfiles"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    **SETTINGS)
def page(request):
    return HttpResponse({PAGE!r} + '<input name="csrfmiddlewaretoken" value="' + get_token(request) + '">')
def form(request):
    return HttpResponse("saved " + request.POST["word"])
urlpatterns = [
    path("", lambda request: HttpResponseRedirect(request.build_absolute_uri("/there/"))),
    path("there/", page), path("form", form)]
execute_from_command_line(["django", "runserver", "--noreload", "@port@"])
"""
CSRF = {
    "takes": {"token": r'name="csrfmiddlewaretoken" value="([^"]+)"'},
    "forms": (Form("/form", {"word": "it", "csrfmiddlewaretoken": "{token}"}, text="saved it"),),
}

STARLETTE = f"""
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
async def page(request): return HTMLResponse({PAGE!r})
async def form(request): return PlainTextResponse("saved " + (await request.form())["word"])
async def socket(websocket):
    await websocket.accept()
    await websocket.send_text("hello")
async def inside(request): return HTMLResponse({PAGE!r})
app = Starlette(routes=[
    Mount("/static", StaticFiles(directory="static")), Route("/form", form, methods=["POST"]),
    Mount("/app", routes=[Route("/", inside)]), WebSocketRoute("/ws", socket)])
"""
ASGI = {
    "files": {"app.py": STARLETTE, **CSS},
    "forms": SAVED,
    "socket": "/ws",
    "says": True,
    # Without its last slash: it redirects, to what it takes for its own address.
    "page": "/app",
}

EXPRESS = f"""
import express from "express"
const app = express()
app.use("/static", express.static("static"))
app.use(express.urlencoded())
app.get("/", (request, answer) => answer.redirect(request.protocol + "://" + request.host + "/there"))
app.get("/there", (request, answer) => answer.send({PAGE!r}))
app.post("/form", (request, answer) => answer.send("saved " + request.body.word))
app.listen(@port@)
"""

MCP = """
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
server = MCPServer("test")
@server.tool()
def add(a: int, b: int) -> int: return a + b
server.run("streamable-http", port=@port@, transport_security=SECURITY)
"""
HELLO = (
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    '"clientInfo":{"name":"test","version":"1"}}}'
)
MCP_HELLO = (
    Form(
        "/mcp",
        headers={"Content-Type": "application/json", "Accept": "application/json, text/event-stream"},
        body=HELLO,
        text="serverInfo",
        what="initialize",
    ),
)

BOKEH_SOCKET = {
    "takes": {"token": r'"?token"?:\s*"([^"]+)"'},
    "protocols": ("bokeh", "{token}"),
    "says": True,
}
VITE = {
    "socket": "/?token={token}",
    "protocols": ("vite-hmr",),
    "takes": {"token": r'wsToken = "([^"]+)"'},
    "takes_from": "/@vite/client",
}

ANGULAR = {
    "angular.json": """{"version": 1, "projects": {"app": {"projectType": "application", "root": "", "architect": {
"build": {"builder": "@angular/build:application", "options": {
"browser": "src/main.ts", "tsConfig": "tsconfig.json", "index": "src/index.html"},
"configurations": {"development": {"optimization": false}}},
"serve": {"builder": "@angular/build:dev-server", "options": {
"buildTarget": "app:build:development", "allowedHosts": ALLOWED}}}}}}""",
    "tsconfig.json": '{"compilerOptions": {"target": "ES2022", "module": "preserve", "skipLibCheck": true,'
    ' "experimentalDecorators": true, "moduleResolution": "bundler"}, "files": ["src/main.ts"]}',
    "src/index.html": "<!doctype html><html><body><app-root></app-root></body></html>",
    "src/main.ts": "import { Component } from '@angular/core'\n"
    "import { bootstrapApplication } from '@angular/platform-browser'\n"
    "@Component({ selector: 'app-root', template: '<p>It runs.</p>' })\n"
    "class App {}\nbootstrapApplication(App)\n",
}

APPS = (
    App(
        "Python's `http.server`",
        "guest-http-server",
        8000,
        "python3 -m http.server --directory static @port@",
        files=CSS,
        text="Directory listing",
        asset='href="(a.css)"',
    ),
    App(
        "Flask",
        "guest-flask",
        5000,
        "flask --app app run --port @port@",
        pip=("flask==3.1.3",),
        files={"app.py": FLASK, **CSS},
        forms=SAVED,
    ),
    App(
        "Gunicorn, with Flask",
        "guest-gunicorn",
        8000,
        "gunicorn --bind 127.0.0.1:@port@ app:app",
        pip=("gunicorn==27.0.1", "flask==3.1.3"),
        files={"app.py": FLASK, **CSS},
        forms=SAVED,
    ),
    App(
        "Waitress, with Flask",
        "guest-waitress",
        8080,
        "waitress-serve --listen 127.0.0.1:@port@ app:app",
        pip=("waitress==3.0.2", "flask==3.1.3"),
        files={"app.py": FLASK, **CSS},
        forms=SAVED,
    ),
    App(
        "Django",
        "guest-django",
        8000,
        "python site.py",
        pip=("django==5.2.19",),
        **CSRF,
        files={"site.py": DJANGO.replace("**SETTINGS", ""), **CSS},
        expected=ways("page: 400", setting=WORKS),
        setting='`ALLOWED_HOSTS = ["@host@"]` and `CSRF_TRUSTED_ORIGINS = ["https://@host@"]`',
        with_setting={
            "files": {
                "site.py": DJANGO.replace(
                    "**SETTINGS", 'ALLOWED_HOSTS=["@host@"], CSRF_TRUSTED_ORIGINS=["https://@host@"]'
                ),
                **CSS,
            }
        },
    ),
    App(
        'Django with `ALLOWED_HOSTS = ["*"]` alone',
        "guest-django-any",
        8000,
        "python site.py",
        pip=("django==5.2.19",),
        **CSRF,
        files={"site.py": DJANGO.replace("**SETTINGS", 'ALLOWED_HOSTS=["*"]'), **CSS},
        expected=ways("form: 403", setting=WORKS),
        setting='`SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")`',
        with_setting={
            "files": {
                "site.py": DJANGO.replace(
                    "**SETTINGS", 'ALLOWED_HOSTS=["*"], SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")'
                ),
                **CSS,
            }
        },
    ),
    App(
        "Uvicorn, with Starlette",
        "guest-uvicorn",
        8000,
        "uvicorn --port @port@ app:app",
        pip=("uvicorn==0.54.0", "starlette==1.10.0", "websockets==17.4", "python-multipart==0.0.34"),
        **ASGI,
    ),
    App(
        "Hypercorn, with Starlette",
        "guest-hypercorn",
        8000,
        "hypercorn --bind 127.0.0.1:@port@ app:app",
        pip=("hypercorn==0.18.0", "starlette==1.10.0", "python-multipart==0.0.34"),
        **ASGI,
    ),
    App(
        "Daphne, with Starlette",
        "guest-daphne",
        8000,
        "daphne --port @port@ app:app",
        pip=("daphne==4.2.3", "starlette==1.10.0", "python-multipart==0.0.34"),
        **ASGI,
    ),
    App(
        "Granian, with Starlette",
        "guest-granian",
        8000,
        "granian --interface asgi --port @port@ app:app",
        pip=("granian==2.8.9", "starlette==1.10.0", "python-multipart==0.0.34"),
        **ASGI,
    ),
    App(
        "FastAPI",
        "guest-fastapi",
        8000,
        "fastapi dev --port @port@ app.py",
        pip=("fastapi[standard]==0.165.0",),
        files={
            "app.py": f"""
from typing import Annotated
from fastapi import FastAPI, Form, WebSocket
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
app = FastAPI()
app.mount("/static", StaticFiles(directory="static"))
@app.get("/")
def page(): return HTMLResponse({PAGE!r})
@app.post("/form")
def form(word: Annotated[str, Form()]): return "saved " + word
@app.websocket("/ws")
async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("hello")
""",
            **CSS,
        },
        forms=SAVED,
        socket="/ws",
        says=True,
    ),
    App(
        "aiohttp",
        "guest-aiohttp",
        8080,
        "python app.py",
        pip=("aiohttp==3.14.5",),
        files={
            "app.py": f"""
from aiohttp import web
async def page(request): return web.Response(text={PAGE!r}, content_type="text/html")
async def form(request): return web.Response(text="saved " + (await request.post())["word"])
async def socket(request):
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    await answer.send_str("hello")
    return answer
app = web.Application()
app.add_routes([web.get("/", page), web.post("/form", form), web.get("/ws", socket), web.static("/static", "static")])
web.run_app(app, port=@port@)
""",
            **CSS,
        },
        forms=SAVED,
        socket="/ws",
        says=True,
    ),
    App(
        "Tornado",
        "guest-tornado",
        8888,
        "python app.py",
        pip=("tornado==6.6.1",),
        files={
            "app.py": f"""
import asyncio, tornado.web, tornado.websocket
class Page(tornado.web.RequestHandler):
    def get(self): self.write({PAGE!r} + self.xsrf_form_html())
    def post(self): self.write("saved " + self.get_argument("word"))
class Socket(tornado.websocket.WebSocketHandler):
    def open(self): self.write_message("hello")
async def main():
    tornado.web.Application([("/", Page), ("/ws", Socket)], xsrf_cookies=True, static_path="static").listen(@port@)
    await asyncio.Event().wait()
asyncio.run(main())
""",
            **CSS,
        },
        takes={"token": r'name="_xsrf" value="([^"]+)"'},
        socket="/ws",
        says=True,
        forms=(Form("/", {"word": "it", "_xsrf": "{token}"}, text="saved it"),),
    ),
    App(
        "Bottle",
        "guest-bottle",
        8080,
        "python app.py",
        pip=("bottle==0.13.4",),
        files={
            "app.py": f"""
import bottle
@bottle.get("/")
def page(): bottle.redirect("/there")
@bottle.get("/there")
def there(): return {PAGE!r}
@bottle.get("/static/<name>")
def static(name): return bottle.static_file(name, root="static")
@bottle.post("/form")
def form(): return "saved " + bottle.request.forms.word
bottle.run(port=@port@)
""",
            **CSS,
        },
        forms=SAVED,
    ),
    App(
        "Sanic",
        "guest-sanic",
        8000,
        "python app.py",
        pip=("sanic==25.12.1",),
        files={
            "app.py": f"""
import sanic
app = sanic.Sanic("test")
app.static("/static", "static")
@app.get("/")
async def page(request): return sanic.html({PAGE!r})
@app.post("/form")
async def form(request): return sanic.text("saved " + request.form.get("word"))
@app.websocket("/ws")
async def socket(request, ws): await ws.send("hello")
if __name__ == "__main__": app.run(port=@port@, single_process=True)
""",
            **CSS,
        },
        forms=SAVED,
        socket="/ws",
        says=True,
    ),
    App(
        "CherryPy",
        "guest-cherrypy",
        8080,
        "python app.py",
        pip=("cherrypy==18.10.0",),
        files={
            "app.py": f"""
import cherrypy
class Site:
    @cherrypy.expose
    def index(self): raise cherrypy.HTTPRedirect("/there")
    @cherrypy.expose
    def there(self): return {PAGE!r}
    @cherrypy.expose
    def form(self, word): return "saved " + word
cherrypy.quickstart(Site(), "/", {{"global": {{"server.socket_port": @port@}}, "/static": {{
    "tools.staticdir.on": True, "tools.staticdir.dir": "@folder@/static"}}}})
""",
            **CSS,
        },
        forms=SAVED,
    ),
    App(
        "MCP Python SDK",
        "guest-mcp",
        8000,
        "python app.py",
        pip=("mcp==2.3.0",),
        files={"app.py": MCP.replace("SECURITY", "None")},
        page="",
        asset="",
        forms=MCP_HELLO,
        expected=ways("initialize: 421", "initialize: 421", setting=WORKS),
        setting='`TransportSecuritySettings(allowed_hosts=["@host@"], allowed_origins=["https://@host@"])`',
        with_setting={
            "files": {
                "app.py": MCP.replace(
                    "SECURITY",
                    'TransportSecuritySettings(allowed_hosts=["@host@"], allowed_origins=["https://@host@"])',
                )
            }
        },
    ),
    App(
        "Jupyter Lab",
        "guest-jupyter",
        8888,
        "jupyter lab --allow-root --no-browser --port @port@ --IdentityProvider.token=t",
        pip=("jupyterlab==4.6.6",),
        page="/lab?token=t",
        socket="/api/events/subscribe",
        expected=ways("page: 403", setting=WORKS),
        setting="`--ServerApp.allow_remote_access=True`",
        with_setting={
            "command": "jupyter lab --allow-root --no-browser --port @port@ --IdentityProvider.token=t"
            " --ServerApp.allow_remote_access=True"
        },
    ),
    App(
        "Jupyter Notebook",
        "guest-notebook",
        8888,
        "jupyter notebook --allow-root --no-browser --port @port@ --IdentityProvider.token=t",
        pip=("notebook==7.6.5",),
        page="/tree?token=t",
        socket="/api/events/subscribe",
        expected=ways("page: 403", setting=WORKS),
        setting="`--ServerApp.allow_remote_access=True`",
        with_setting={
            "command": "jupyter notebook --allow-root --no-browser --port @port@ --IdentityProvider.token=t"
            " --ServerApp.allow_remote_access=True"
        },
    ),
    App(
        "Streamlit",
        "guest-streamlit",
        8501,
        "streamlit run --server.headless true --server.port @port@ app.py",
        pip=("streamlit==1.67.0",),
        files={"app.py": "import streamlit\nstreamlit.write('It runs.')\n"},
        socket="/_stcore/stream",
        protocols=("streamlit",),
    ),
    App(
        "Gradio",
        "guest-gradio",
        7860,
        "python app.py",
        pip=("gradio==6.31.0",),
        files={
            "app.py": "import gradio\n"
            "def predict(word): return 'saved ' + word\n"
            "gradio.Interface(predict, 'text', 'text').launch(server_port=@port@)\n"
        },
        never=r'"root":\s*"http://localhost',
        forms=(
            Form(
                "/gradio_api/call/predict",
                body='{"data": ["it"]}',
                headers={"Content-Type": "application/json"},
                text="event_id",
            ),
        ),
        expected=ways(local="page: leads to localhost", port="page: leads to localhost"),
    ),
    App(
        "Dash",
        "guest-dash",
        8050,
        "python app.py",
        pip=("dash==4.4.1",),
        files={
            "app.py": "import dash\napp = dash.Dash()\napp.layout = dash.html.P('It runs.')\napp.run(port=@port@)\n"
        },
    ),
    App(
        "Panel",
        "guest-panel",
        5006,
        "panel serve --port @port@ app.py",
        pip=("panel==1.9.4",),
        page="/app",
        socket="/app/ws",
        files={"app.py": "import panel\npanel.panel('It runs.').servable()\n"},
        **BOKEH_SOCKET,
    ),
    App(
        "Bokeh, with Tornado 6.5",
        "guest-bokeh",
        5006,
        "bokeh serve --port @port@ app.py",
        pip=("bokeh==3.9.2", "tornado==6.5.2"),
        page="/app",
        socket="/app/ws",
        files={
            "app.py": "from bokeh.io import curdoc\nfrom bokeh.models import Div\ncurdoc().add_root(Div(text='x'))\n"
        },
        **BOKEH_SOCKET,
        expected=ways("WebSocket: 403", "WebSocket: 403", setting=WORKS),
        setting="`--allow-websocket-origin=@host@`",
        with_setting={"command": "bokeh serve --port @port@ --allow-websocket-origin=@host@ app.py"},
    ),
    App(
        "marimo",
        "guest-marimo",
        2718,
        "marimo run --headless --no-token --port @port@ app.py",
        pip=("marimo==0.25.2",),
        files={"app.py": "import marimo\napp = marimo.App()\n@app.cell\ndef _():\n    return\n"},
        socket="/ws?session_id=s_abcdef&kiosk=false",
    ),
    App(
        "TensorBoard",
        "guest-tensorboard",
        6006,
        "tensorboard --logdir log.d --port @port@",
        pip=("tensorboard==2.21.0", "setuptools==80.10.2"),
        files={"log.d/x": ""},
    ),
    App("Datasette", "guest-datasette", 8001, "datasette --port @port@ --memory", pip=("datasette==0.65.5",)),
    App(
        "NiceGUI",
        "guest-nicegui",
        8080,
        "python app.py",
        pip=("nicegui==3.18.0",),
        files={
            "app.py": "from nicegui import ui\nui.label('It runs.')\nui.run(port=@port@, show=False, reload=False)\n"
        },
        socket="/_nicegui_ws/socket.io/?EIO=4&transport=websocket",
        says=True,
    ),
    App(
        "MkDocs",
        "guest-mkdocs",
        8000,
        "mkdocs serve --dev-addr 127.0.0.1:@port@",
        pip=("mkdocs==1.6.1", "click==8.1.8"),
        files={"mkdocs.yml": "site_name: x\n", "docs/index.md": "# It runs\n"},
    ),
    App(
        "sphinx-autobuild",
        "guest-sphinx",
        8000,
        "sphinx-autobuild --port @port@ source made",
        pip=("sphinx-autobuild==2025.8.25",),
        files={"source/conf.py": "project = 'x'\n", "source/index.rst": "It runs\n=======\n"},
        socket="/websocket-reload",
    ),
    App(
        "WsgiDAV",
        "guest-wsgidav",
        8080,
        "wsgidav --host 127.0.0.1 --port @port@ --root static --auth anonymous",
        pip=("wsgidav==4.4.0", "cheroot==11.1.2"),
        files=CSS | {"static/b.css": "x"},
        asset="",
        forms=(
            Form(
                "/a.css",
                method="COPY",
                headers={"Destination": "{here}/c.css", "Overwrite": "T"},
                expected=(201, 204),
                body="",
                what="COPY",
            ),
        ),
    ),
    App(
        "Radicale",
        "guest-radicale",
        5232,
        "radicale --server-hosts localhost:@port@ --auth-type none --storage-filesystem-folder store",
        pip=("radicale==3.9.0",),
        page="/.web/",
    ),
    App(
        "Locust",
        "guest-locust",
        8089,
        "locust --web-port @port@ -f app.py",
        pip=("locust==2.47.0",),
        files={
            "app.py": "import locust\nclass User(locust.HttpUser):\n    host = 'http://localhost:1'\n    @locust.task\n"
            "    def visit(self): pass\n"
        },
    ),
    App(
        "Glances",
        "guest-glances",
        61208,
        "glances --webserver --port @port@ --bind 127.0.0.1",
        pip=("glances[web]==4.5.8",),
    ),
    App(
        "MLflow",
        "guest-mlflow",
        5000,
        "mlflow server --port @port@",
        pip=("mlflow==3.17.2",),
        expected=ways("page: 403", setting=WORKS),
        setting="`--allowed-hosts @host@ --cors-allowed-origins https://@host@`",
        with_setting={
            "command": "mlflow server --port @port@ --allowed-hosts @host@ --cors-allowed-origins https://@host@"
        },
    ),
    App(
        "Express",
        "guest-express",
        3000,
        "node app.js",
        npm=("express@5.3.0",),
        files={"app.js": EXPRESS, **CSS},
        forms=SAVED,
    ),
    App(
        "Fastify",
        "guest-fastify",
        3000,
        "node app.js",
        npm=("fastify@5.12.8", "@fastify/static@10.1.11", "@fastify/formbody@9.0.1"),
        files={
            "app.js": f"""
import fastify from "fastify"
const app = fastify()
app.register(await import("@fastify/static"), {{ root: "@folder@/static", prefix: "/static/" }})
app.register(await import("@fastify/formbody"))
app.get("/", (request, answer) => answer.redirect("/there"))
app.get("/there", (request, answer) => answer.type("text/html").send({PAGE!r}))
app.post("/form", (request, answer) => answer.send("saved " + request.body.word))
app.listen({{ port: @port@ }})
""",
            **CSS,
        },
        forms=SAVED,
    ),
    App(
        "json-server",
        "guest-json-server",
        3000,
        "json-server --port @port@ db.json",
        npm=("json-server@0.17.4",),
        asset="",
        files={"db.json": '{"words": [{"id": "1", "word": "it"}]}'},
        page="/words",
        text="it",
    ),
    App(
        "http-server",
        "guest-node-http-server",
        8080,
        "http-server -p @port@ static",
        npm=("http-server@14.1.1",),
        files=CSS,
        asset='href="(./a.css)"',
    ),
    App(
        "serve",
        "guest-serve",
        3000,
        "serve -l @port@ static",
        npm=("serve@14.2.7",),
        files=CSS,
        asset='href="([^"]+a.css)"',
    ),
    App(
        "Node-RED",
        "guest-node-red",
        1880,
        "node-red --port @port@ --userDir data",
        npm=("node-red@4.1.15",),
        node_type="commonjs",
        socket="/comms",
    ),
    App(
        "Vite",
        "guest-vite",
        5173,
        "vite --port @port@ --strictPort",
        npm=("vite@8.4.0",),
        files={
            "index.html": '<script type="module" src="/app.js"></script>',
            "app.js": "console.log(1)\n",
            "vite.config.js": "export default {}",
        },
        **VITE,
        expected=ways("page: 403", setting=WORKS),
        setting='`server: { allowedHosts: ["@host@"] }`',
        with_setting={"files": {"vite.config.js": 'export default { server: { allowedHosts: ["@host@"] } }'}},
    ),
    App(
        "Next.js, `next dev`",
        "guest-next",
        3000,
        "next dev --port @port@",
        npm=("next@16.4.6", "react@19.3.1", "react-dom@19.3.1"),
        files={
            "app/layout.js": "export default ({ children }) => <html><body>{children}</body></html>\n",
            "app/page.js": "export default () => <p>It runs.</p>\n",
            "next.config.js": "export default {}\n",
        },
        socket="/_next/hmr",
        setting='`allowedDevOrigins: ["@host@"]`',
        expected=ways("WebSocket: 502", setting=WORKS),
        with_setting={"files": {"next.config.js": 'export default { allowedDevOrigins: ["@host@"] }\n'}},
    ),
    App(
        "Nuxt, `nuxt dev`",
        "guest-nuxt",
        3000,
        "nuxt dev --port @port@",
        npm=("nuxt@4.4.5",),
        files={"app.vue": "<template><p>It runs.</p></template>\n", "nuxt.config.ts": "export default {}\n"},
        patience=240,
        expected=ways("page: 403", setting=WORKS),
        setting='`vite: { server: { allowedHosts: ["@host@"] } }`',
        with_setting={
            "files": {
                "nuxt.config.ts": 'export default { vite: { server: { allowedHosts: ["@host@"] } } }\n',
            }
        },
    ),
    App(
        "SvelteKit, `vite dev`",
        "guest-sveltekit",
        5173,
        "vite dev --port @port@ --strictPort",
        npm=("@sveltejs/kit@2.70.4", "svelte@5.57.3", "vite@8.4.0", "@sveltejs/vite-plugin-svelte@7.3.1"),
        files={
            "vite.config.js": "import { sveltekit } from '@sveltejs/kit/vite'\n"
            "export default { plugins: [sveltekit()] }\n",
            "src/app.html": "<html><head>%sveltekit.head%</head><body>%sveltekit.body%</body></html>",
            "src/routes/+page.svelte": '<form method="POST"><input name="word"></form>\n',
            "src/routes/+page.server.js": "export const actions = { default: async () => ({ saved: true }) }\n",
        },
        **VITE,
        asset=r'import\("([^"]+)"\)',
        forms=(Form("/", {"word": "it"}),),
        expected=ways("page: 403", setting=WORKS),
        setting='`server: { allowedHosts: ["@host@"] }` in vite.config.js',
        with_setting={
            "files": {
                "vite.config.js": "import { sveltekit } from '@sveltejs/kit/vite'\n"
                'export default { plugins: [sveltekit()], server: { allowedHosts: ["@host@"] } }\n'
            }
        },
    ),
    App(
        "Astro",
        "guest-astro",
        4321,
        "astro dev --port @port@",
        npm=("astro@5.18.2",),
        files={
            "src/pages/index.astro": "<p>It runs.</p>\n<script>console.log(1)</script>\n",
            "astro.config.mjs": "export default {}\n",
        },
        **VITE,
        expected=ways("page: 403", setting=WORKS),
        setting='`server: { allowedHosts: ["@host@"] }`',
        with_setting={"files": {"astro.config.mjs": 'export default { server: { allowedHosts: ["@host@"] } }\n'}},
    ),
    App(
        "webpack-dev-server",
        "guest-webpack",
        8080,
        "webpack serve --port @port@",
        node_type="commonjs",
        npm=("webpack-dev-server@5.2.7", "webpack@5.113.0", "webpack-cli@7.3.1"),
        files={
            "src/index.js": "console.log(1)\n",
            "public/index.html": '<script src="/main.js"></script>',
            "webpack.config.js": "module.exports = { mode: 'development', devServer: {} }\n",
        },
        socket="/ws",
        says=True,
        expected=ways("page: 403", setting=WORKS),
        setting='`devServer: { allowedHosts: ["@host@"] }`',
        with_setting={
            "files": {
                "src/index.js": "1\n",
                "public/index.html": '<script src="/main.js"></script>',
                "webpack.config.js": "module.exports = { mode: 'development',\n"
                "  devServer: { allowedHosts: ['@host@'] } }\n",
            }
        },
    ),
    App(
        "Storybook",
        "guest-storybook",
        6006,
        "storybook dev --port @port@ --ci --no-open --config-dir .storybook",
        patience=240,
        npm=("storybook@10.6.7", "@storybook/html-vite@10.6.0", "vite@8.4.0"),
        files={
            ".storybook/main.js": "export default {\n"
            "  framework: '@storybook/html-vite', stories: ['../src/*.stories.js'] }\n",
            "src/a.stories.js": "export default { title: 'A' }\n"
            "export const One = { render: () => '<p>It runs.</p>' }\n",
        },
        expected=ways("page: 403", setting=WORKS),
        setting='`core: { allowedHosts: ["@host@"] }` in .storybook/main.js',
        with_setting={
            "files": {
                ".storybook/main.js": "export default { core: { allowedHosts: ['@host@'] },\n"
                "  framework: '@storybook/html-vite', stories: ['../src/*.stories.js'] }\n",
            }
        },
    ),
    App(
        "esbuild",
        "guest-esbuild",
        8000,
        "esbuild src/app.js --bundle --outdir=static/js --servedir=static --serve=127.0.0.1:@port@",
        npm=("esbuild@0.28.2",),
        files={"src/app.js": "console.log(1)\n", "static/index.html": '<script src="/js/app.js"></script>'},
        expected=ways("page: 403"),
    ),
    App(
        "Parcel",
        "guest-parcel",
        1234,
        "parcel index.html --port @port@ --no-cache",
        npm=("parcel@2.16.4",),
        node_type="commonjs",
        files={"index.html": '<script type="module" src="app.js"></script>', "app.js": "console.log(1)\n"},
        socket="/",
    ),
    App(
        "Rsbuild",
        "guest-rsbuild",
        3000,
        "rsbuild dev --port @port@",
        npm=("@rsbuild/core@2.3.2",),
        files={"src/index.js": "console.log(1)\n"},
    ),
    App(
        "VitePress",
        "guest-vitepress",
        5173,
        "vitepress dev --port @port@",
        npm=("vitepress@1.6.4",),
        files={"index.md": "# It runs\n", ".vitepress/config.mjs": "export default {}\n"},
        **VITE,
        expected=ways("page: 403", setting=WORKS),
        setting='`vite: { server: { allowedHosts: ["@host@"] } }` in .vitepress/config.mjs',
        with_setting={
            "files": {
                "index.md": "# It runs\n",
                ".vitepress/config.mjs": 'export default { vite: { server: { allowedHosts: ["@host@"] } } }\n',
            }
        },
    ),
    App(
        "Eleventy",
        "guest-eleventy",
        8080,
        "eleventy --serve --port=@port@ --input=src",
        npm=("@11ty/eleventy@3.1.8",),
        files={"src/index.html": PAGE},
        socket="/",
    ),
    App(
        "Browsersync",
        "guest-browsersync",
        3000,
        "browser-sync start --server static --port @port@ --no-open",
        npm=("browser-sync@3.0.4",),
        files=CSS | {"static/index.html": "<html><body><p>It runs.</p></body></html>"},
        asset=r"src = '(/browser-sync/browser-sync-client.js[^']*)",
        socket="/browser-sync/socket.io/?EIO=4&transport=websocket",
    ),
    App(
        "Socket.IO",
        "guest-socketio",
        3000,
        "node app.js",
        npm=("socket.io@4.8.4",),
        files={
            "app.js": """
import { createServer } from "node:http"
import { Server } from "socket.io"
const server = createServer((request, answer) => answer.end('<script src="/socket.io/socket.io.js"></script>'))
new Server(server)
server.listen(@port@)
"""
        },
        socket="/socket.io/?EIO=4&transport=websocket",
        says=True,
    ),
    App(
        "React Router, `react-router dev`",
        "guest-react-router",
        5173,
        "react-router dev --port @port@",
        npm=(
            "@react-router/dev@7.18.4",
            "react-router@7.18.4",
            "@react-router/node@7.18.5",
            "react@19.3.1",
            "react-dom@19.3.1",
            "vite@8.4.0",
            "isbot@5.2.3",
        ),
        files={
            "app/root.jsx": "import { Outlet, Scripts } from 'react-router'\n"
            "export default () => <html><body><Outlet /><Scripts /></body></html>\n",
            "app/routes.js": "import { index } from '@react-router/dev/routes'\nexport default [index('home.jsx')]\n",
            "app/home.jsx": "import { Form } from 'react-router'\nexport const action = async () => ({ saved: true })\n"
            "export default () => <Form method='post' />\n",
            "vite.config.js": "import { reactRouter } from '@react-router/dev/vite'\n"
            "export default { plugins: [reactRouter()] }\n",
        },
        forms=(Form("/?index", {"word": "it"}),),
        **VITE,
        expected=ways("page: 403", setting=WORKS),
        asset=r'import\("([^"]+)"\)',
        setting='`server: { allowedHosts: ["@host@"] }` in vite.config.js, `allowedActionOrigins: ["@host@"]` in '
        "react-router.config.js",
        with_setting={
            "files": {
                "react-router.config.js": 'export default { allowedActionOrigins: ["@host@"] }\n',
                "vite.config.js": "import { reactRouter } from '@react-router/dev/vite'\n"
                'export default { plugins: [reactRouter()], server: { allowedHosts: ["@host@"] } }\n',
            }
        },
    ),
    App(
        "Angular, `ng serve`",
        "guest-angular",
        4200,
        "ng serve --port @port@",
        npm=(
            *(
                f"@angular/{part}@20.3.32"
                for part in ("core", "common", "compiler", "compiler-cli", "platform-browser")
            ),
            *("@angular/cli@20.3.43", "@angular/build@20.3.41", "rxjs@7.8.2", "typescript@5.9.3", "tslib@2.9.1"),
        ),
        files=ANGULAR | {"angular.json": ANGULAR["angular.json"].replace("ALLOWED", "[]")},
        patience=240,
        **VITE,
        expected=ways("page: 403", setting=WORKS),
        setting='`"allowedHosts": ["@host@"]` below `serve` in angular.json',
        with_setting={"files": ANGULAR | {"angular.json": ANGULAR["angular.json"].replace("ALLOWED", '["@host@"]')}},
    ),
    App(
        "Home Assistant",
        "guest-home-assistant",
        8123,
        "hass --config config --skip-pip",
        pip=(
            "homeassistant==2024.3.3",
            # What it would fetch when it starts.
            "home-assistant-frontend==20240307.0",
            *("Pillow==10.2.0", "PyTurboJPEG==1.7.1", "SQLAlchemy==2.0.27", "fnv-hash-fast==0.5.0", "janus==1.0.0"),
            *("josepy==1.15.0", "psutil-home-assistant==0.0.1", "securetar==2024.2.1"),
        ),
        files={"config/configuration.yaml": "http:\n  server_port: @port@\n"},
        patience=240,
        expected=ways("page: 400", "page: 400", "page: 400", setting=WORKS),
        setting='`http: {use_x_forwarded_for: true, trusted_proxies: [127.0.0.1, "::1"]}`',
        with_setting={
            "files": {
                "config/configuration.yaml": "http:\n  server_port: @port@\n  use_x_forwarded_for: true\n"
                '  trusted_proxies: [127.0.0.1, "::1"]\n'
            }
        },
    ),
)
