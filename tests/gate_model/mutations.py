"""Rules of the gate that the model can break on purpose, and which promise shows each of them.

Those without one are broken without harm, because another rule holds as well: they are there to know that.
"""

PLACES, RATE = "no more places than the limit", "no more releases in a window than the rate"
STUCK = "nothing is stuck"

MUTATIONS: dict[str, str | None] = {
    "forget a release once it is sent": PLACES,
    "forget a release that the leader does not know of": PLACES,
    "settle a release before it is applied": PLACES,
    "fence by a wildcard": "a former holder releases nothing",
    "fence by a lease that a take-over leaves alone": "a former holder releases nothing",
    "release before the last lease is applied": PLACES,
    "a holder for each lease": PLACES,
    "take the rates for unused at a take-over": RATE,
    "count places from the start on": PLACES,
    "release without what the attempts have left": "attempts count on",
    "go on only from a failure": "attempts count on",
    "start again after a failure without the gate": "a job that is held takes its place by a release",
    "pass over dependencies": "nothing starts before what it is to run after",
    "pass over startBefore": "what comes too late is cancelled",
    "pass over firing": "what is queued too late is not started",
    "take up what an outage has kept": "a tick that an outage has kept is skipped",
    "take a take-over for attendance": "a tick that an outage has kept is skipped",
    "skip by what was known before a take-over": "a tick that was held back in time is not skipped",
    "pass over priorities": "jobs go by priority and then creation",
    "let what crosses a deletion make a job": "a job that is deleted stays so",
    "fence edits and deletions by all messages of the job": "every event that is stored is legal",
    "nak after a failure": None,
}
"""By what is broken, the promise that does not hold then."""
