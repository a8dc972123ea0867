"""A function in Python, of the world wasi:http/proxy 0.2: it greets whoever asks."""

import os

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

# The most that WASI lets one blocking write carry.
WRITE_LIMIT = 4096


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        path = request.path_with_query() or "/"
        # What is printed appears in `hivectl logs`.
        print(f"asked for {path}", flush=True)
        answer(response_out, greeting(path))


def greeting(path: str) -> str:
    # GREETING is set in function.yaml. Hive itself sets the names that start with HIVE_.
    greeting = os.environ.get("GREETING", "Hello")
    function = os.environ.get("HIVE_FUNCTION", "hello")
    return f"{greeting} from {function}: you asked for {path}\n"


def answer(response_out: ResponseOutparam, text: str) -> None:
    headers = Fields.from_list([("content-type", b"text/plain; charset=utf-8")])
    response = OutgoingResponse(headers)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))

    data = text.encode()
    # The stream belongs to the body, which cannot be finished before it is closed.
    with body.write() as stream:
        for start in range(0, len(data), WRITE_LIMIT):
            stream.blocking_write_and_flush(data[start : start + WRITE_LIMIT])
    OutgoingBody.finish(body, None)
