"""What runs inside a backend's environment: tasks that take a request and return a result.

Nothing here imports ``orchestrator``: this folder is copied into processes whose Python is the
backend's, where the orchestrator and its libraries do not exist.
"""
