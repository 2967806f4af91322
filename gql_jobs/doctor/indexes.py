"""Do the indexes of the API processes on this machine tell what the stream tells?

Each is compared with the patient's, which was built from the stream just now. A running API goes on writing its own
meanwhile, so whatever differs is looked at again once both have come further: what is really wrong stays.
"""

import asyncio
import sqlite3
from pathlib import Path

from gql_jobs.doctor.finding import Finding, several
from gql_jobs.doctor.patient import Patient
from gql_jobs.lock import is_held
from gql_jobs.views.comparison import different_jobs, faults_of, miscounted, position_of, still_different

CHECK = "indexes"
LOOKS = 4
PAUSE = 1.0
"""Seconds between two looks at what differs."""
_ADVICE = "Stop the API process that uses {path}, delete the file and start it again: it is built anew from the stream."


async def check_indexes(patient: Patient) -> list[Finding]:
    """Every index file in the data folder."""
    found: list[Finding] = []
    for path in sorted(patient.settings.data_dir.glob("index-*.sqlite")):
        try:
            found += await _check(patient, path)
        except sqlite3.DatabaseError as error:
            found.append(Finding(CHECK, f"The index {path} cannot be read: {error}.", _ADVICE.format(path=path)))
    return found


async def _check(patient: Patient, path: Path) -> list[Finding]:
    advice = _ADVICE.format(path=path)
    position = await asyncio.to_thread(position_of, path, patient.stream_created)
    if position is None:
        # An API process replaces it when it starts.
        return []
    faults = await asyncio.to_thread(faults_of, path)
    if faults:
        return [Finding(CHECK, f"The index {path} is damaged: {'; '.join(faults)}.", advice)]
    if not is_held(path.with_suffix(".lock")) and position < patient.feed.position:
        # At rest and behind: what it lacks it reads when it is used again, and what differs may be that.
        return []
    different = await _different(patient, path)
    miscount = await asyncio.to_thread(miscounted, path) if not different else []
    return several(CHECK, f"jobs in the index {path} are not what the stream says", advice, different) + several(
        CHECK, f"counters of the index {path} are not the number of its jobs", advice, miscount
    )


async def _different(patient: Patient, path: Path) -> set[str]:
    different = await asyncio.to_thread(different_jobs, patient.index.path, path)
    for _ in range(LOOKS):
        if not different:
            break
        await asyncio.sleep(PAUSE)
        await patient.follow()
        different = await asyncio.to_thread(still_different, patient.index.path, path, different)
    return different
