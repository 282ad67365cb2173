"""Who calls the handler. Only here, and in handler.py, is a server known."""
