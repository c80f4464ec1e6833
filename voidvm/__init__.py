"""VoidVM runs virtual machines on one Linux host, over REST and WebSocket."""

__version__ = "0.1.0"
