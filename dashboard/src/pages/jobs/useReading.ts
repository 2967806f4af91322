// A list that is read, connected: its beginning and the rows on the screen are pushed, its pages are asked for.

import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import { type Client, useClient } from 'urql';
import { subscribe } from 'wonka';
import { sentence } from '../../api/connection';
import {
  type JobFilter,
  ListChangesDocument,
  type ListChangesSubscription,
  NextJobsDocument,
  PlaceOfJobsDocument,
} from '../../api/generated';
import { applied, type JobList, useJobList } from '../../api/jobList';
import { session } from '../../api/session';
import type { Asked } from './filter';
import { HEAD, Reading } from './reading';

/** Changes of the list in a second at most: what moves hundreds of bars more often costs a browser a whole core. */
const A_SECOND = 2;
/** Jobs of a page: few answers for a long way, and none that takes long. */
const PAGE = 200;
/** Rows at the end by which the place is found that a page goes on from. */
const LAST = 20;
/** Milliseconds in which changes of what is on the screen come together before other rows are watched. */
const SETTLES = 250;
/** Blocks of rows that are watched at once, beside the beginning. */
const MOST_BLOCKS = 5;

/** Watches blocks of rows: those that go on being asked for are left alone. */
class RowWatches {
  private readonly open = new Map<string, () => void>();

  constructor(
    private readonly client: Client,
    private readonly onRows: (ids: readonly string[], list: JobList) => void,
  ) {}

  watch(blocks: readonly (readonly string[])[]): void {
    const wanted = new Map(blocks.slice(0, MOST_BLOCKS).map((ids) => [ids.join(), ids]));
    for (const [key, ids] of wanted) if (!this.open.has(key)) this.open.set(key, this.begin(ids));
    for (const [key, end] of this.open)
      if (!wanted.has(key)) {
        this.open.delete(key);
        end();
      }
  }

  private begin(ids: readonly string[]): () => void {
    let list: JobList = { jobs: [], totalCount: 0 };
    const variables = { filter: { ids: [...ids] }, orderBy: null, first: ids.length, maxPerSecond: A_SECOND };
    return subscribe<{ data?: ListChangesSubscription }>(({ data }) => {
      if (!data) return;
      list = applied(list, data.jobsChanged);
      if (!data.jobsChanged.more) this.onRows(ids, list);
    })(this.client.subscription(ListChangesDocument, variables)).unsubscribe;
  }
}

/** Where somebody is in a list: what is there again when they come back to it. */
export interface Place {
  /** Tells the list from all others. */
  name: string;
  /** How far the list is scrolled, in pixels. */
  top: number;
  /** The row that the keys are about. */
  active: string | null;
  selected: ReadonlySet<string>;
}

interface Kept {
  entry: string;
  key: string;
  reading: Reading;
  place: Place;
}

/** Lists that the browser's history can lead back to. */
const MOST_KEPT = 5;
const kept: Kept[] = [];
// Whoever signs in next may not be allowed to see them.
session.subscribe(() => {
  if (session.value.state !== 'signed in') kept.length = 0;
});

/** Names the present entry of the browser's history: going back to it finds the name again, a link to it does not. */
function historyEntry(): string {
  const state = history.state as { list?: unknown } | null;
  if (typeof state?.list === 'string') return state.list;
  const list = crypto.getRandomValues(new Uint32Array(2)).join('-');
  history.replaceState({ ...state, list }, '');
  return list;
}

function listOf(key: string, filter: JobFilter): Kept {
  const entry = historyEntry();
  const known = kept.find((one) => one.entry === entry && one.key === key);
  if (known) return known;
  const place = { name: `${entry} ${key}`, top: 0, active: null, selected: new Set<string>() };
  const made = { entry, key, reading: new Reading(filter), place };
  kept.unshift(made);
  kept.length = Math.min(kept.length, MOST_KEPT);
  return made;
}

export interface ReadList {
  reading: Reading;
  place: Place;
  /** Whether the beginning of the list is there. */
  ready: boolean;
  /** Why the list is not watched. */
  problem: string | null;
  /** Why the last page did not come. */
  pageProblem: string | null;
  loading: boolean;
  /** Ask for the next page; nothing happens while one is on its way. */
  loadMore(): void;
  /** Say which rows are on the screen. */
  onScreen(first: number, last: number): void;
}

/**
 * Read the list that is asked for, as long as the component is there. Another question begins another list, and whoever
 * goes back in the browser's history finds the list as it was left, with what has changed meanwhile.
 */
export function useReading({ filter, orderBy }: Asked): ReadList {
  const client = useClient();
  const key = JSON.stringify([filter, orderBy]);
  const { reading, place } = useMemo(() => listOf(key, filter), [key]);
  const { list, problem } = useJobList('Jobs', filter, orderBy, HEAD, A_SECOND);
  const [loading, setLoading] = useState(false);
  const [pageProblem, setPageProblem] = useState<string | null>(null);
  const screen = useRef<readonly [number, number]>([0, 0]);
  const settle = useRef<() => void>(() => {});
  useSyncExternalStore(reading.subscribe, reading.getVersion);

  useEffect(() => {
    if (list) reading.pushed(list);
  }, [reading, list]);

  useEffect(() => {
    setLoading(false);
    setPageProblem(null);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const watches = new RowWatches(client, (ids, { jobs }) => reading.watched(ids, jobs));
    settle.current = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        watches.watch(reading.blocks(...screen.current));
      }, SETTLES);
    };
    const end = reading.subscribe(() => settle.current());
    return () => {
      end();
      clearTimeout(timer);
      settle.current = () => {};
      watches.watch([]);
    };
  }, [client, reading]);

  const current = useRef(reading);
  current.current = reading;
  const isLoading = useRef<Reading | null>(null);

  async function loadMore(): Promise<void> {
    const behind = reading.ids.at(-1);
    if (isLoading.current === reading || behind === undefined) return;
    isLoading.current = reading;
    setLoading(true);
    try {
      const problem = await nextPage(behind);
      if (current.current === reading) setPageProblem(problem);
    } finally {
      if (isLoading.current === reading) isLoading.current = null;
      if (current.current === reading) setLoading(false);
    }
  }

  async function nextPage(behind: string): Promise<string | null> {
    let after = reading.cursor;
    if (after === null) {
      const ids = reading.ids.slice(-LAST);
      const { data, error } = await client
        .query(PlaceOfJobsDocument, { ids, orderBy, first: LAST })
        .toPromise();
      if (!data) return error ? sentence(error) : null;
      // Jobs that have moved meanwhile are at the far end of the order, and so not the place that is looked for: with
      // the greatest first at its beginning, else at its end.
      const { startCursor, endCursor } = data.jobs.pageInfo;
      after = orderBy?.direction === 'ASC' ? startCursor : endCursor;
      if (after === null) return 'The last jobs that are shown have expired. Show the list anew to go on.';
    }
    const { data, error } = await client
      .query(NextJobsDocument, { filter, orderBy, first: PAGE, after })
      .toPromise();
    if (data && current.current === reading) {
      const { nodes, pageInfo } = data.jobs;
      reading.append(behind, { jobs: nodes, cursor: pageInfo.endCursor, more: pageInfo.hasNextPage });
    }
    return error ? sentence(error) : null;
  }

  return {
    reading,
    place,
    ready: reading.total !== null,
    problem,
    pageProblem,
    loading,
    loadMore: () => void loadMore(),
    onScreen(first, last) {
      if (screen.current[0] === first && screen.current[1] === last) return;
      screen.current = [first, last];
      settle.current();
    },
  };
}
