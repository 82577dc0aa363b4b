"""The page as an ASGI app: static files from the package, and the ways to it from `/`."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

API_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Corkboard: the API</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css"><div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "./docs.json", dom_id: "#swagger-ui", deepLinking: true})</script></html>"""
"""BentoML's own page at `/` loads a tag manager from the network; this one opens offline."""


class _Fresh(StaticFiles):
    """Static files that browsers ask for again, so that an upgrade shows at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def page() -> Starlette:
    """The page, to be mounted at `/ui`."""
    app = Starlette()
    app.mount("/", _Fresh(directory=str(files("bentos") / "page"), html=True))
    return app


async def _to_page(request: Request) -> RedirectResponse:
    return RedirectResponse("/ui/")


async def _api(request: Request) -> HTMLResponse:
    return HTMLResponse(API_PAGE)


def front_door() -> Starlette:
    """`/` leads to the page, `/docs` to the API's description."""
    return Starlette(routes=[Route("/", _to_page), Route("/docs", _api)])
