// Jobs that are created again and again. To change them needs the scope OPERATE, and neither a tenant nor limits.

import type {
  DeleteScheduleMutation,
  FindScheduleQuery,
  ListSchedulesQuery,
  PauseScheduleMutation,
  PreviewScheduleQuery,
  PreviewScheduleQueryVariables,
  RunScheduleMutation,
  ScheduleFieldsFragment,
  ScheduleInput,
  UpsertScheduleMutation,
} from './generated/operations.js';
import { type Abortable, type Ask, wasThere } from './http.js';
import type { JobHandle } from './jobHandle.js';
import { type NameOf, nameOf, type PayloadOf } from './jobTypes.js';
import {
  DELETE_SCHEDULE,
  PAUSE_SCHEDULE,
  RUN_SCHEDULE,
  SCHEDULE,
  SCHEDULE_FIELDS,
  SCHEDULE_PREVIEW,
  SCHEDULES,
  UPSERT_SCHEDULE,
} from './operations.js';

/** A schedule as it stands. Its moments are texts, its durations seconds; `payload` is without secrets. */
export type Schedule = Omit<ScheduleFieldsFragment, 'lastJob'> & {
  /** The job of its latest tick that came to run. */
  readonly lastJob: Pick<NonNullable<ScheduleFieldsFragment['lastJob']>, 'id' | 'status'> | null;
};

/** When a schedule is due, by `cron` or by `everySeconds`, and how its jobs are made. */
export interface ScheduleOptions extends Omit<ScheduleInput, 'name' | 'payload'>, Abortable {}

export interface PreviewOptions extends PreviewScheduleQueryVariables, Abortable {}

export interface ScheduleCalls<Types extends object> {
  /**
   * Define a schedule of jobs of the type `name` with this payload, or replace the one of this name. To ask for the same
   * again changes nothing.
   */
  upsertSchedule<Name extends NameOf<Types>>(
    schedule: string,
    name: Name,
    payload: PayloadOf<Types, Name>,
    options: ScheduleOptions,
  ): Promise<Schedule>;
  /** Have it be without ticks until it is resumed. */
  pauseSchedule(schedule: string, options?: Abortable): Promise<Schedule>;
  /** Have it have ticks again, from now on. */
  resumeSchedule(schedule: string, options?: Abortable): Promise<Schedule>;
  /** Delete it, and cancel its jobs that have not been queued; whether it was there. */
  deleteSchedule(schedule: string, options?: Abortable): Promise<boolean>;
  /** Create a job of it at once, outside of its ticks. Not repeated where the answer is lost: it could run twice. */
  runSchedule<Name extends NameOf<Types> = NameOf<Types>>(
    schedule: string,
    options?: Abortable,
  ): Promise<JobHandle<Types, Name>>;
  /** All of them, sorted by name; none for whoever sees some jobs only. */
  schedules(options?: Abortable): Promise<Schedule[]>;
  /** One of them; null if there is none, and for whoever sees some jobs only. */
  schedule(schedule: string, options?: Abortable): Promise<Schedule | null>;
  /** When such a schedule would be due, in UTC: five moments, or as many as `first` says. */
  schedulePreview(options: PreviewOptions): Promise<readonly string[]>;
}

const PAGE = 100;

/**
 * @param handleOf makes a handle of a job that was created, by its id and the name of its type.
 */
export function scheduleCalls<Types extends object>(
  ask: Ask,
  handleOf: <Name extends NameOf<Types>>(id: string, name: Name) => JobHandle<Types, Name>,
): ScheduleCalls<Types> {
  const pause = (paused: boolean) => async (name: string, how?: Abortable) => {
    const given = { name, paused };
    const asked = PAUSE_SCHEDULE + SCHEDULE_FIELDS;
    return (await ask<PauseScheduleMutation>(asked, given, { signal: how?.signal })).pauseSchedule.schedule;
  };
  return {
    async upsertSchedule(schedule, name, payload, { signal, ...rest }) {
      const input = { ...rest, name: schedule, payload: { [name]: payload } };
      const asked = UPSERT_SCHEDULE + SCHEDULE_FIELDS;
      return (await ask<UpsertScheduleMutation>(asked, { input }, { signal, name })).upsertSchedule.schedule;
    },
    pauseSchedule: pause(true),
    resumeSchedule: pause(false),
    deleteSchedule: (name, how) => wasThere<DeleteScheduleMutation>(ask, DELETE_SCHEDULE, { name }, how),
    async runSchedule(name, how) {
      const once = { signal: how?.signal, repeatable: false };
      const { id, __typename } = (await ask<RunScheduleMutation>(RUN_SCHEDULE, { name }, once)).runSchedule
        .job;
      return handleOf(id, nameOf(__typename) as NameOf<Types>) as never;
    },
    async schedules(how) {
      const asked = SCHEDULES + SCHEDULE_FIELDS;
      const found: Schedule[] = [];
      for (;;) {
        const given = { first: PAGE, after: found.at(-1)?.name };
        const { schedules } = await ask<ListSchedulesQuery>(asked, given, { signal: how?.signal });
        found.push(...schedules);
        if (schedules.length < PAGE) return found;
      }
    },
    async schedule(name, how) {
      const asked = SCHEDULE + SCHEDULE_FIELDS;
      return (await ask<FindScheduleQuery>(asked, { name }, { signal: how?.signal })).schedule;
    },
    async schedulePreview({ signal, ...given }) {
      return (await ask<PreviewScheduleQuery>(SCHEDULE_PREVIEW, given, { signal })).schedulePreview;
    },
  };
}
