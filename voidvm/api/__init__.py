"""The only package that knows Sanic: REST and WebSocket."""
