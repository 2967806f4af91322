// A list of jobs that is pushed: a snapshot, then changes in groups. After the last of a group the list is what the
// query `jobs` answers at the same place of the history.

import { useEffect, useState } from 'react';
import { type CombinedError, useClient } from 'urql';
import { subscribe } from 'wonka';
import { catchUpWithStore, connections, sayCaughtUp, sentence } from './connection';
import {
  type JobFilter,
  type JobOrder,
  ListChangesDocument,
  type ListChangesSubscription,
  type ListedJobFragment,
} from './generated';
import { count, many } from '../format';

export type ListedJob = ListedJobFragment;
export type Change = ListChangesSubscription['jobsChanged'];

export interface JobList {
  jobs: readonly ListedJob[];
  /** How many match, those that are not shown included. */
  totalCount: number;
}

/** The list after a change. The list given is left as it is. */
export function applied(list: JobList, change: Change): JobList {
  const { totalCount } = change;
  if (change.__typename === 'JobsSnapshot') return { jobs: change.nodes, totalCount };
  if (change.__typename === 'JobLeft')
    return { jobs: list.jobs.filter(({ id }) => id !== change.id), totalCount };
  const { job } = change;
  if (change.__typename === 'JobUpdated')
    return { jobs: list.jobs.map((shown) => (shown.id === job.id ? job : shown)), totalCount };
  const jobs = list.jobs.filter(({ id }) => id !== job.id);
  const place = change.before === null ? -1 : jobs.findIndex(({ id }) => id === change.before);
  jobs.splice(place < 0 ? jobs.length : place, 0, job);
  return { jobs, totalCount };
}

/** How two states of a list differ: how many jobs are new in it, have changed, or are gone. */
export function difference(
  before: JobList,
  after: JobList,
): { entered: number; updated: number; left: number } {
  const known = new Map(before.jobs.map((job) => [job.id, job.updatedAt]));
  let entered = 0;
  let updated = 0;
  for (const { id, updatedAt } of after.jobs) {
    const then = known.get(id);
    if (then === undefined) entered += 1;
    else if (then !== updatedAt) updated += 1;
    known.delete(id);
  }
  return { entered, updated, left: known.size };
}

const isWhole = ({ jobs, totalCount }: JobList): boolean => jobs.length >= totalCount;

/**
 * What a list has caught up with, in a sentence. Where only its beginning is watched, a job that is not in that any more
 * may have moved down, so that the number of all says how many have come or gone.
 */
export function differenceSaid(name: string, before: JobList, after: JobList): string {
  const { entered, updated, left } = difference(before, after);
  const more = after.totalCount - before.totalCount;
  if (!(entered || updated || left || more)) return `${name}: nothing has changed.`;
  const all = `${many(after.totalCount, 'job')} in all`;
  if (isWhole(before) && isWhole(after)) {
    const parts = [entered && `${entered} new`, updated && `${updated} changed`, left && `${left} gone`];
    return `${name}: ${parts.filter(Boolean).join(', ')}; ${all}.`;
  }
  const moved =
    more === 0 ? 'as many as before' : `${count(Math.abs(more))} ${more > 0 ? 'more' : 'fewer'} than before`;
  const shown = after.jobs.length;
  const parts = [entered && `${entered} new`, updated && `${updated} changed`].filter(Boolean);
  const first = shown > 1 && parts.length > 0 && `; of the first ${shown}: ${parts.join(', ')}`;
  return `${name}: ${all}, ${moved}${first || ''}.`;
}

export interface WatchedList {
  /** Null until the first snapshot is there. */
  list: JobList | null;
  /** Why it is not watched (any more). */
  problem: string | null;
}

/**
 * Watch the first jobs that match, in their order. The list is given when a group of changes is complete.
 *
 * `name` is what the list is called when it says what it has caught up with. Filter and order may be new objects at
 * each rendering; a change of their contents begins a new list.
 */
export function useJobList(
  name: string,
  filter: JobFilter,
  orderBy: JobOrder | null,
  first: number,
  maxPerSecond = 4,
): WatchedList {
  const client = useClient();
  const [watched, setWatched] = useState<WatchedList & { key: string }>({
    key: '',
    list: null,
    problem: null,
  });
  const key = JSON.stringify([filter, orderBy, first, maxPerSecond]);
  useEffect(() => {
    let list: JobList = { jobs: [], totalCount: 0 };
    let shown: JobList | null = null;
    let seen = connections.value;
    const { unsubscribe } = subscribe<{ data?: ListChangesSubscription; error?: CombinedError }>(
      ({ data, error }) => {
        if (error) setWatched({ key, list: shown, problem: sentence(error) });
        if (!data) return;
        list = applied(list, data.jobsChanged);
        if (data.jobsChanged.more) return;
        if (shown && seen !== connections.value) sayCaughtUp(differenceSaid(name, shown, list));
        seen = connections.value;
        shown = list;
        setWatched({ key, list, problem: null });
      },
    )(client.subscription(ListChangesDocument, { filter, orderBy, first, maxPerSecond }));
    const end = catchUpWithStore(
      () => shown,
      (then) => differenceSaid(name, then, shown ?? then),
    );
    return () => {
      end();
      unsubscribe();
    };
  }, [client, key]);
  return watched.key === key ? watched : { list: null, problem: null };
}
