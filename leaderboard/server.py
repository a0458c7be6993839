"""Serves app.py with HTTP headers that keep other pages from framing it, and compressed scripts.

`xlt-bench leaderboard serve` runs this file. Streamlit has no setting for either, so
`streamlit run leaderboard/app.py` serves without.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from static_files import StaticFiles
from streamlit.starlette import App

_HEADERS = [
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


class Headers:
    """Middleware that adds the headers to every HTTP response."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in _HEADERS}
                others = [(k, v) for k, v in message.get("headers", []) if k.lower() not in ours]
                message = {**message, "headers": [*others, *_HEADERS]}
            await send(message)

        await self.inner(scope, receive, sending)


app = App("app.py", middleware=[Middleware(Headers), Middleware(StaticFiles)])
