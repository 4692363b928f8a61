"""The worker: a parent that claims and completes, and children that run user code.

supervisor > dispatcher, completer, heartbeat, listener, maintenance, shutdown > pool >
child > executor > timeouts. The parent runs no user code; the children touch no queue
rows, but for the completion of an atomic task.
"""
