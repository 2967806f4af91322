// Which jobs are listed, in which order: as the address has it, so that whoever gets the address sees the same.

import type {
  JobFilter,
  JobOrder,
  JobOrderField,
  JobPriority,
  JobStatus,
  SortDirection,
} from '../../api/generated';
import { moment, short, STATUS } from '../../format';

export interface Asked {
  filter: JobFilter;
  /** Null for the order that is used where none is asked for: the newest first. */
  orderBy: JobOrder | null;
}

/** What is called how in an address: the names of the API. */
const LISTS = ['ids', 'status', 'type', 'queue', 'priority', 'tags'] as const;
const TEXTS = ['createdAfter', 'createdBefore', 'parent', 'key', 'concurrencyKey', 'schedule'] as const;

type List = (typeof LISTS)[number];
type Text = (typeof TEXTS)[number];

export const PRIORITY: Record<JobPriority, string> = {
  CRITICAL: 'Critical',
  HIGH: 'High',
  NORMAL: 'Normal',
  LOW: 'Low',
};

/** The orders that can be chosen, by how an address names them. */
export const ORDERS: Record<string, string> = {
  'CREATED_AT-DESC': 'Newest first',
  'CREATED_AT-ASC': 'Oldest first',
  'UPDATED_AT-DESC': 'Changed last first',
  'UPDATED_AT-ASC': 'Changed first first',
  'FINISHED_AT-DESC': 'Finished last first',
  'FINISHED_AT-ASC': 'Finished first first',
  'PRIORITY-DESC': 'Highest priority first',
  'PRIORITY-ASC': 'Lowest priority first',
};

export const USUAL_ORDER = 'CREATED_AT-DESC';

/** How an address names an order. */
export const orderName = (orderBy: JobOrder | null): string =>
  orderBy ? `${orderBy.field ?? 'CREATED_AT'}-${orderBy.direction ?? 'DESC'}` : USUAL_ORDER;

/**
 * What an address asks for. Values that do not exist are kept: the server says in a sentence what is wrong with them,
 * where a list that silently ignores them would show too much.
 */
export function asked(parameters: URLSearchParams): Asked {
  const filter: Record<string, string[] | string> = {};
  for (const name of LISTS) {
    const values = [...new Set(parameters.getAll(name).filter(Boolean))];
    if (values.length) filter[name] = values;
  }
  for (const name of TEXTS) {
    const value = parameters.get(name);
    if (value) filter[name] = value;
  }
  const order = parameters.get('order');
  if (!order || order === USUAL_ORDER) return { filter: filter as JobFilter, orderBy: null };
  const [field, direction] = order.split('-', 2);
  return {
    filter: filter as JobFilter,
    orderBy: { field: field as JobOrderField, direction: (direction ?? 'DESC') as SortDirection },
  };
}

/** The parameters of the address that asks for this. */
export function parametersOf({ filter, orderBy }: Asked): Record<string, string | string[] | undefined> {
  const order = orderName(orderBy);
  return {
    ...Object.fromEntries([...LISTS, ...TEXTS].map((name) => [name, filter[name] ?? undefined])),
    order: order === USUAL_ORDER ? undefined : order,
  };
}

/** The same with other values in one place; what is empty is no condition. */
export function narrowed<Name extends List | Text>(
  filter: JobFilter,
  name: Name,
  value: JobFilter[Name],
): JobFilter {
  const next = { ...filter };
  if (!value?.length) delete next[name];
  else next[name] = value;
  return next;
}

/** How many conditions there are. */
export const conditions = (filter: JobFilter): number => Object.keys(filter).length;

/** A moment of an address as it is said; an address may name one that is none, and then it is what stands there. */
export const momentSaid = (at: string): string => (Number.isNaN(Date.parse(at)) ? at : moment(at));

/** The filter in words: `status Queued or Running, tags a and b`; empty where there is no condition. */
export function inWords(filter: JobFilter): string {
  const parts: string[] = [];
  const list = (name: string, values: readonly string[] | null | undefined, joint = ' or ') => {
    if (values?.length)
      parts.push(`${name} ${values.length > 5 ? `one of ${values.length}` : values.join(joint)}`);
  };
  list('id', filter.ids?.map(short));
  list(
    'status',
    filter.status?.map((status) => STATUS[status] ?? status),
  );
  list('type', filter.type);
  list('queue', filter.queue);
  list(
    'priority',
    filter.priority?.map((priority) => PRIORITY[priority] ?? priority),
  );
  list('tags', filter.tags, ' and ');
  if (filter.createdAfter) parts.push(`created after ${momentSaid(filter.createdAfter)}`);
  if (filter.createdBefore) parts.push(`created before ${momentSaid(filter.createdBefore)}`);
  if (filter.parent) parts.push(`created by job ${short(filter.parent)}`);
  if (filter.key) parts.push(`key ${filter.key}`);
  if (filter.concurrencyKey) parts.push(`concurrency key ${filter.concurrencyKey}`);
  if (filter.schedule) parts.push(`schedule ${filter.schedule}`);
  return parts.join(', ');
}

/** Whether a job that matched the filter once still does, by what can change of it: its state, and what is edited. */
export const stillMatches = (
  { status, priority, tags }: JobFilter,
  job: { status: JobStatus; priority: JobPriority; tags: readonly string[] },
): boolean =>
  (!status || status.includes(job.status)) &&
  (!priority || priority.includes(job.priority)) &&
  (!tags || tags.every((tag) => job.tags.includes(tag)));

/** Whether jobs in one of these states can be among those that match. */
export const canInclude = ({ status }: JobFilter, states: readonly JobStatus[]): boolean =>
  !status || states.some((state) => status.includes(state));

const two = (number: number): string => String(number).padStart(2, '0');

/** A moment as a field for local time has it; empty where it is none. */
export function localField(at: string | null | undefined): string {
  const date = new Date(at ?? '');
  if (Number.isNaN(date.getTime())) return '';
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** The moment that a field for local time names, in UTC: the address is right in every time zone. */
export function momentOfField(text: string): string | null {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? null : date.toISOString().replace('.000Z', 'Z');
}
