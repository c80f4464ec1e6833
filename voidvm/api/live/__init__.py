"""The WebSocket for events, metrics, control and terminals: many conversations on one line."""
