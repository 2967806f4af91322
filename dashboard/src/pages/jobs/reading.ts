// What is shown of a list while somebody reads it. The server pushes the first jobs of the list (the head) and answers
// further pages; here they become rows that keep their places for as long as they are being read. Nothing in this module
// knows a component.

import type { JobList, ListedJob } from '../../api/jobList';
import type { JobFilter } from '../../api/generated';
import { stillMatches } from './filter';

/** How many jobs the server pushes of the list's beginning. */
export const HEAD = 100;
/** Rows that are watched together, once they are on the screen. */
export const BLOCK = 50;

export interface Page {
  jobs: readonly ListedJob[];
  /** The place behind the last of them. */
  cursor: string | null;
  more: boolean;
}

const atOf = (job: ListedJob): number => Date.parse(job.updatedAt);

/**
 * The rows of a list. While it is held, none of them moves or vanishes: new ones wait, and what no longer matches is
 * marked. Otherwise the rows are the list as the server has it.
 */
export class Reading {
  private readonly jobs = new Map<string, ListedJob>();
  private readonly places = new Map<string, number>();
  /** Those of which the server says that they are not there any more. */
  private readonly expired = new Set<string>();
  private readonly listeners = new Set<() => void>();
  private head: ReadonlySet<string> = new Set();
  private headIds: readonly string[] = [];
  private held = false;
  private endsAt: { id: string; cursor: string } | null = null;
  private shown: readonly string[] = [];

  /** Grows with each change that can be seen. */
  version = 0;
  /** How many match as of the last push; null before the first. */
  total: number | null = null;
  /** Whether the server has said that pages follow the last row. */
  more = false;

  constructor(private readonly filter: JobFilter) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly getVersion = (): number => this.version;

  /** The ids of the rows, in order. */
  get ids(): readonly string[] {
    return this.shown;
  }

  /** What is known of a job that is or was shown. */
  job(id: string): ListedJob | undefined {
    return this.jobs.get(id);
  }

  /** The place of a row, from 0; -1 where it is not shown. */
  indexOf(id: string): number {
    return this.places.get(id) ?? -1;
  }

  /** Whether a row is shown although its job does not match the filter any more, or has expired. */
  isGone(id: string): boolean {
    if (this.head.has(id)) return false;
    const job = this.jobs.get(id);
    return this.expired.has(id) || job === undefined || !stillMatches(this.filter, job);
  }

  /** How many jobs of the list's beginning wait to be shown. */
  get waiting(): number {
    return this.held ? this.headIds.reduce((sum, id) => sum + (this.places.has(id) ? 0 : 1), 0) : 0;
  }

  /** Whether more may wait than are counted: the beginning has nothing in common with what is shown. */
  get waitsBeyond(): boolean {
    return this.waiting === this.headIds.length && (this.total ?? 0) > this.headIds.length;
  }

  /** The cursor behind the last row; null where it has to be asked for. */
  get cursor(): string | null {
    return this.endsAt !== null && this.endsAt.id === this.shown.at(-1) ? this.endsAt.cursor : null;
  }

  /** Take the beginning of the list as it was pushed. */
  pushed({ jobs, totalCount }: JobList): void {
    for (const job of jobs) this.learn(job);
    this.headIds = jobs.map(({ id }) => id);
    this.head = new Set(this.headIds);
    this.total = totalCount;
    if (!this.held || this.shown.length === 0) this.show(this.renewed());
    else this.extend();
    this.say();
  }

  /** Take the page behind the row that was the last when it was asked for; another list has begun if that is not so. */
  append(behind: string | undefined, { jobs, cursor, more }: Page): void {
    if (behind !== this.shown.at(-1)) return;
    for (const job of jobs) this.learn(job);
    const added = jobs.filter(({ id }) => !this.places.has(id)).map(({ id }) => id);
    this.show([...this.shown, ...added]);
    this.more = more;
    const last = this.shown.at(-1);
    this.endsAt = cursor !== null && last !== undefined ? { id: last, cursor } : null;
    this.say();
  }

  /** Take what the server pushed of these rows: those that are missing are not there any more. */
  watched(ids: readonly string[], jobs: readonly ListedJob[]): void {
    const there = new Set(jobs.map(({ id }) => id));
    for (const job of jobs) this.learn(job);
    for (const id of ids) if (!there.has(id)) this.expired.add(id);
    this.say();
  }

  /** Say whether somebody reads: rows keep their places until nobody does, or the list is renewed. */
  hold(held: boolean): void {
    if (held === this.held) return;
    this.held = held;
    if (!held) this.show(this.renewed());
    this.say();
  }

  /** Show the list as it is now, and go on holding it if somebody reads. */
  renew(): void {
    this.show(this.renewed());
    this.say();
  }

  /**
   * The rows of some places, in blocks that stay the same while one scrolls, without those that are pushed anyway.
   * Blocks without such rows are left out.
   */
  blocks(first: number, last: number): string[][] {
    const found: string[][] = [];
    for (let start = Math.max(0, first - (first % BLOCK)); start <= last; start += BLOCK) {
      const ids = this.shown.slice(start, start + BLOCK).filter((id) => !this.head.has(id));
      if (ids.length) found.push(ids);
    }
    return found;
  }

  /** The ids from one row to another, both included, whichever stands first; the second alone if the first is not shown. */
  range(from: string | null, to: string): readonly string[] {
    const start = from === null ? -1 : this.indexOf(from);
    const end = this.indexOf(to);
    if (start < 0 || end < 0) return [to];
    return this.shown.slice(Math.min(start, end), Math.max(start, end) + 1);
  }

  private learn(job: ListedJob): void {
    const known = this.jobs.get(job.id);
    // A page that was asked for before a push may come after it.
    if (known && atOf(job) < atOf(known)) return;
    this.jobs.set(job.id, job);
    this.expired.delete(job.id);
  }

  /** The beginning as it is now, and behind it the rows that followed the last job of it, as far as they are known. */
  private renewed(): string[] {
    const last = this.headIds.at(-1);
    const isWhole = this.headIds.length >= (this.total ?? 0);
    const place = last === undefined || isWhole ? -1 : this.indexOf(last);
    const rest =
      place < 0 ? [] : this.shown.slice(place + 1).filter((id) => !this.head.has(id) && !this.isGone(id));
    if (rest.length === 0) this.more = !isWhole;
    return [...this.headIds, ...rest];
  }

  /** What follows the last row is shown at once: nothing moves because of it. */
  private extend(): void {
    const last = this.shown.at(-1);
    const place = last === undefined ? -1 : this.headIds.indexOf(last);
    const added = place < 0 ? [] : this.headIds.slice(place + 1).filter((id) => !this.places.has(id));
    if (added.length) this.show([...this.shown, ...added]);
    if (place >= 0 && this.headIds.length < (this.total ?? 0)) this.more = true;
  }

  private show(ids: readonly string[]): void {
    this.shown = ids;
    this.places.clear();
    ids.forEach((id, place) => {
      this.places.set(id, place);
    });
    if (this.jobs.size > 2 * (ids.length + HEAD))
      for (const id of this.jobs.keys()) if (!this.places.has(id) && !this.head.has(id)) this.jobs.delete(id);
  }

  private say(): void {
    this.version += 1;
    for (const listener of [...this.listeners]) listener();
  }
}
