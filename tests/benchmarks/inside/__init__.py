"""What runs in the environment of a peer: its tasks, and a process that enqueues.

Nothing here is imported by the one who measures. ``BENCHMARK`` in the environment says
which peer it is and where its database or broker is found (see ``given``). Each module
that is named like a peer has the same names:

``enqueue(name, args)``         puts one task in the queue, as its documentation says
``enqueue_many(name, calls)``   the same for many, by its bulk call where it has one
``unfinished()``                how many tasks the queue itself says are not done yet

and, where the peer offers them, ``enqueue_unique(key)``, which tells whether it was
accepted, and ``make_schedules(tasks)``, which makes one schedule per name, the first of
them corrupt.
"""
