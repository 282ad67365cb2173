"""Does the finished archive answer as the source's own library does? Asked end to end, with raw texts and pictures."""

from ts_handlers.build.verify.run import verify

__all__ = ["verify"]
