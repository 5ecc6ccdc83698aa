"""What the page is made of: files of this package as they are, and of the report its colours and what draws attention."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import vlax.evaluation.report
from vlax.serve.limits import Refusal

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FOLDERS = {
    "page": (Path(__file__).parent / "files", ("page.css", "page.js")),
    "report": (Path(vlax.evaluation.report.__file__).parent / "template", ("base.css", "base.js", "attention.js")),
}


def _file(path: Path) -> Response:
    return Response(path.read_bytes(), media_type=_KINDS[path.suffix])


async def _index(request: Request) -> Response:
    return _file(_FOLDERS["page"][0] / "index.html")


async def _part(request: Request) -> Response:
    folder, names = _FOLDERS[request.url.path.split("/")[1]]
    name = request.path_params["name"]
    if name not in names:
        raise Refusal(404, f"there is no {name[:80]!r} here")
    return _file(folder / name)


def routes() -> list[Route]:
    """GET /, /page/NAME, /report/NAME."""
    return [Route("/", _index), *(Route(f"/{folder}/{{name}}", _part) for folder in _FOLDERS)]
