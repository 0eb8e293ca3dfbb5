"""TensorBoard's side of the Watt tab: the routes that serve its page and its data."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import time as unix_time
from typing import Any

import msgspec
from tensorboard import context, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug.wrappers import Request, Response

from lightning_watt.errors import RecordError
from lightning_watt.record.difference import difference
from lightning_watt.record.writer import to_json
from lightning_watt.tensorboard.reader import Reader
from lightning_watt.tensorboard.records import Records

STATIC = Path(__file__).parent / "static"
# Not from the machine's own table, which may call scripts text/plain; browsers refuse such modules.
TYPES = {".js": "text/javascript", ".css": "text/css"}
PLOTLY_S = 86_400
"""How long a browser keeps the charting library."""
NO_PLOTLY = "plotly is not installed where TensorBoard runs: pip install 'lightning_watt[tensorboard]'"

App = Callable[..., Any]


class WattPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard has no types
    """The Watt tab. It reads through the data provider and opens no file of a run.

    Args:
        tb_context: TensorBoard's; only its data provider is used.
    """

    plugin_name = "watt"

    def __init__(self, tb_context: Any) -> None:
        self._provider = tb_context.data_provider
        self._records = Records()

    def frontend_metadata(self) -> Any:
        """How TensorBoard shows the tab."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Watt")

    def is_active(self) -> bool:
        """Whether any run was measured; if not, the tab is in the menu of inactive ones and shows what to do."""
        return self._provider is not None and Reader(self._provider, context.RequestContext(), "", self._records).any_runs()

    def get_plugin_apps(self) -> dict[str, App]:
        """The routes. Only files that lie in `static/` now have one, so no request can name another."""
        files = sorted(file for file in STATIC.rglob("*") if file.suffix in TYPES)
        return {
            "/runs": Request.application(self._serve_runs),
            "/curves": Request.application(self._serve_curves),
            "/epochs": Request.application(self._serve_epochs),
            "/compare": Request.application(self._serve_compare),
            "/statement": Request.application(self._serve_statement),
            "/record": Request.application(self._serve_record),
            "/plotly.js": Request.application(self._serve_plotly),
            **{f"/static/{file.relative_to(STATIC).as_posix()}": _file_app(file) for file in files},
        }

    def _serve_runs(self, request: Request) -> Response:
        """All runs: `{now_unix, where, runs: [Run]}`."""
        reader = self._reader(request)
        return _json(request, {"now_unix": unix_time(), "where": reader.where(), "runs": reader.runs()})

    def _serve_curves(self, request: Request) -> Response:
        """Curves of the runs named by `run`, by device if `by_device` is there: `{RUN: Curves}`."""
        return _json(request, self._reader(request).curves(request.args.getlist("run"), "by_device" in request.args))

    def _serve_epochs(self, request: Request) -> Response:
        """The newest epochs of the runs named by `run`: `{RUN: [Epoch]}`."""
        return _json(request, self._reader(request).epochs(request.args.getlist("run")))

    def _serve_compare(self, request: Request) -> Response:
        """How the second of two runs named by `run` differs from the first: `Difference`, and its verdict."""
        reader, names = self._reader(request), request.args.getlist("run")
        try:
            first, second = (reader.record(name) for name in names[:2])
            if first is None or second is None:
                raise RecordError("One of the two runs has no record yet.")
            found = difference(second, first)
        except (RecordError, ValueError) as error:
            return _json(request, {"problem": str(error)})
        return _json(request, {**asdict(found), "is_sure": found.is_sure, "verdict": found.verdict, "problem": None})

    def _serve_statement(self, request: Request) -> Response:
        """The run named by `run` in words for a paper: `{text, latex, bibtex, model_card}`, or `{problem}`."""
        name = request.args.get("run", "")
        try:
            record = self._reader(request).record(name)
        except RecordError as error:
            return _json(request, {"problem": str(error)})
        if record is None:
            return _json(request, {"problem": "The run has no record yet."})
        return _json(request, asdict(record.statement(name)))

    def _serve_record(self, request: Request) -> Response:
        """The record of the run named by `run`: `{record, problem}`, the one or the other null, both if there is none."""
        try:
            record = self._reader(request).record(request.args.get("run", ""))
        except RecordError as error:
            return _json(request, {"record": None, "problem": str(error)})
        return _json(request, {"record": None if record is None else msgspec.Raw(to_json(record)), "problem": None})

    def _serve_plotly(self, request: Request) -> Response:
        """The charting library, from where it is installed."""
        packed = _plotly()
        if packed is None:
            return _answer(request, NO_PLOTLY, "text/plain", code=404)
        return _answer(request, packed, TYPES[".js"], expires=PLOTLY_S, content_encoding="gzip")

    def _reader(self, request: Request) -> Reader:
        environ = request.environ
        return Reader(self._provider, plugin_util.context(environ), plugin_util.experiment_id(environ), self._records)


def _file_app(file: Path) -> App:
    @Request.application
    def serve(request: Request) -> Response:
        return _answer(request, file.read_bytes(), TYPES[file.suffix])

    return serve


def _json(request: Request, content: Any) -> Response:
    """Strict JSON: numbers that do not exist are null."""
    return _answer(request, msgspec.json.encode(content), "application/json")


def _answer(request: Request, content: bytes | str, kind: str, **options: Any) -> Response:
    """An answer as TensorBoard gives it: packed if the browser accepts it, not sniffed, cached only if asked for."""
    response: Response = http_util.Respond(request, content, kind, **options)
    return response


@functools.cache
def _plotly() -> bytes | None:
    """plotly.js, packed; found without importing the package, which takes a while."""
    spec = importlib.util.find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(place) / "package_data" / "plotly.min.js"
        if file.is_file():
            return gzip.compress(file.read_bytes(), 6)
    return None
