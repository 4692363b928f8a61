"""What users of other task queues may write, and our words for it.

Celery, RQ, Dramatiq, Huey, django-q, ARQ and Procrastinate are looked at.
"""

from __future__ import annotations

#: Our options, and what the same is called elsewhere.
_ELSEWHERE = {
    "run_after": "countdown eta delay schedule schedule_in schedule_at scheduled_for "
    "enqueue_in enqueue_at run_at next_run defer_by defer_until _defer_by _defer_until",
    "queue_name": "queue _queue_name routing_key exchange",
    "max_attempts": "retries max_retries retry max_tries tries attempts max_retry",
    "time_limit": "timeout job_timeout hard_time_limit max_runtime",
    "soft_time_limit": "soft_timeout",
    "expires": "expires_in expiry expire ttl max_age _expires",
    "priority": "prio at_front",
    "metadata": "meta headers tags properties",
    "on_commit": "enqueue_on_commit delay_on_commit",
    "backoff": "retry_backoff retry_backoff_max retry_delay default_retry_delay "
    "retry_interval retry_policy retry_jitter min_backoff max_backoff",
    "retry_on": "autoretry_for retry_for retry_exceptions retry_when",
    "give_up_on": "dont_autoretry_for throws",
    "takes_context": "bind pass_context context",
    "store_result": "ignore_result store_results save",
    "result_retention": "result_ttl result_expires keep_result",
    "sensitive": "argsrepr kwargsrepr",
    "name": "actor_name task_name job_name",
}
_OURS = {word: ours for ours, words in _ELSEWHERE.items() for word in words.split()}
#: An example of each option.
_EXAMPLES = {
    "run_after": "run_after=60",
    "queue_name": 'queue_name="mail"',
    "max_attempts": "max_attempts=4",
    "time_limit": "time_limit=60",
    "soft_time_limit": "soft_time_limit=50",
    "expires": "expires=3600",
    "priority": "priority=10",
    "metadata": 'metadata={"key": "value"}',
    "on_commit": "on_commit=True",
    "backoff": "backoff=[5, 60]",
    "retry_on": "retry_on=[OSError]",
    "give_up_on": "give_up_on=[ValueError]",
    "takes_context": "takes_context=True",
    "store_result": "store_result=False",
    "result_retention": "result_retention=86400",
    "sensitive": 'sensitive=["password"]',
    "name": 'name="mail.send"',
    "atomic": "atomic=True",
}
_NOTES = {
    "run_after": ", in seconds, or a timedelta or datetime",
    "max_attempts": ", the first attempt included",
    "time_limit": ", in seconds",
    "expires": ", in seconds, or a timedelta",
}
#: What the attributes of their tasks are here; {task} is the name of the task.
_ATTRIBUTES = {
    "{task}.enqueue(...)": "delay send push kiq delay_on_commit submit spawn",
    "await {task}.aenqueue(...)": "adelay delay_async defer_async asend",
    "{task}.using(run_after=60).enqueue(...)": "schedule defer enqueue_in enqueue_at",
    "{task}.using(...).enqueue(...)": "apply_async apply_async_on_commit "
    "send_with_options enqueue_call",
    "{task}.using(...)": "configure set",
    "{task}.s(...)": "si subtask signature message message_with_options",
    "{task}.call(...)": "apply call_local",
    "{task}.func": "fn",
    "{task}.get_result(id)": "AsyncResult",
    "enqueue_many([{task}.s(1), {task}.s(2)])": "map starmap chunks",
    "raise Retry(after=60)": "retry",
    "@task(takes_context=True)": "request",
}
_INSTEAD = {word: ours for ours, words in _ATTRIBUTES.items() for word in words.split()}


def our_option(name: str) -> tuple[str, str]:
    """Return our option of that meaning, and an example; two empty texts for none."""
    ours = _OURS.get(name, name)
    return (ours, _EXAMPLES[ours]) if ours in _EXAMPLES else ("", "")


def note_of(option: str) -> str:
    """Return what an example of the option needs to be told with it."""
    return _NOTES.get(option, "")


def instead_of(attribute: str, task: str) -> str:
    """Return what to write instead of an attribute of others, empty for none."""
    return _INSTEAD.get(attribute, "").replace("{task}", task)
