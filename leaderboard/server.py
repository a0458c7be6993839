"""What `xlt-bench leaderboard serve` runs: app.py, in answers that no other page may frame.

Streamlit has no setting for such headers. `streamlit run leaderboard/app.py` serves without them.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.starlette import App

_HEADERS = [
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


class Headers:
    """Adds the headers to every answer over HTTP."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in _HEADERS}
                others = [(k, v) for k, v in message.get("headers", []) if k.lower() not in ours]
                message = {**message, "headers": [*others, *_HEADERS]}
            await send(message)

        await self.inner(scope, receive, sending)


app = App("app.py", middleware=[Middleware(Headers)])
