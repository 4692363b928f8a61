"""The signals: what happened to a task or to a worker, told in the same process.

``task_enqueued``, ``task_started`` and ``task_finished`` have the task's definition as
sender, the very object that ``@task`` made, so that a receiver can listen to one task::

    @receiver(task_finished, sender=send_welcome)
    def note(sender, task_result, **kwargs): ...

and the keyword ``task_result``, a ``TaskResult``. ``task_enqueued`` comes when the
transaction has committed, in the process that enqueued; the others come from the
process that runs the task.

``worker_started`` and ``worker_stopped`` come from the worker's parent process, with
its class as sender and the keyword ``worker``, a ``NewWorker``.

All are sent robustly: a receiver that raises is logged and hinders nobody.
"""

from __future__ import annotations

from django.dispatch import Signal

#: Sent after the commit that made the task visible to workers.
task_enqueued = Signal()
#: Sent before an attempt.
task_started = Signal()
#: Sent after an attempt, whatever it came to; ``task_result`` says what.
task_finished = Signal()

#: Sent when a worker has registered.
worker_started = Signal()
#: Sent when a worker has signed off.
worker_stopped = Signal()
