"""A small picture server on loopback, for the demo's image jobs: one picture that is there, and none besides."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageDraw

_CHUNK = 16 * 1024


def picture() -> bytes:
    """A JPEG of 1 600 by 1 200 pixels."""
    image = Image.linear_gradient("L").resize((1600, 1200)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for step in range(8):
        draw.ellipse((100 + 150 * step, 300, 500 + 150 * step, 900), outline=(30 * step, 90, 220 - 20 * step), width=12)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=92)
    return target.getvalue()


@contextmanager
def picture_server(pause: float) -> Iterator[str]:
    """Serve ``/picture.jpg``, pausing so many seconds after each 16 KiB; gives the server's address."""
    body = picture()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/picture.jpg":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body), _CHUNK):
                self.wfile.write(body[start : start + _CHUNK])
                time.sleep(pause)

        def log_message(self, *_: object) -> None:
            """Nothing: the demo's output is about jobs."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="pictures", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
