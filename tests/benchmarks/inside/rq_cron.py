"""What ``rq cron`` reads: schedules are code, and the first has a field too few."""

from rq import cron

from tests.benchmarks.inside import work as body
from tests.benchmarks.inside.given import GIVEN

for name in GIVEN["schedules"]:
    if name == GIVEN["schedules"][0]:
        cron.register(body.work, queue_name="default", args=(name,), cron="* * *")
    else:
        cron.register(body.work, queue_name="default", args=(name,), interval=5)
