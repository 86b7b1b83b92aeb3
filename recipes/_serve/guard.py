"""What stands before the page: its browser may ask no other server, and no request is too long."""

from typing import Any

# Gradio's own page needs the two "unsafe" words; what they could load is of this server alone.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'"
)


class Guard:
    """An ASGI application in front of another.

    Args:
        app: that answers.
        most: bytes of a request; a longer one, or one of unsaid length, is answered by 413.
    """

    def __init__(self, app: Any, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        headers = dict(scope.get("headers", []))
        brings = scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH")
        length = headers.get(b"content-length", b"")
        if brings and not (length.isdigit() and int(length) <= self.most):
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"too long"})
            return

        async def answer(part: Any) -> None:
            if part["type"] == "http.response.start":
                added = [(b"content-security-policy", POLICY.encode())]
                added += [(b"referrer-policy", b"no-referrer")]
                part = {**part, "headers": [*part.get("headers", []), *added]}
            await send(part)

        await self.app(scope, receive, answer)
