// The list of schedules. Nothing tells of schedules by itself, so it is asked for again: after one's own changes, when
// one of them is due, when the page is shown again or the connection is back, and now and then; how old it is, is said.

import { useCallback, useEffect, useRef, useState } from 'react';
import { useClient } from 'urql';
import { serverNow } from '../../api/clock';
import { connections, line, sayCaughtUp, sentence, storeIsAway } from '../../api/connection';
import { SchedulesDocument } from '../../api/generated';
import { asksAgainIn, differenceOfSchedules, type Listed, type Schedule } from './when';

/** Schedules of one answer: what each is waited for with counts for its cost as well. */
const PAGE = 25;
/** Milliseconds after NATS is back in which the server has read what had happened. */
const READS_ON_WITHIN = 3000;

export interface Known extends Listed {
  /** When that was so, by the server's clock. */
  at: string;
}

export interface Schedules {
  /** Null until the first answer is there. */
  known: Known | null;
  /** Why the last answer did not come. */
  problem: string | null;
  ask: () => Promise<void>;
  /** Have the next ones shown as well. */
  showMore: () => Promise<void>;
}

/** The first schedules by their names, for as long as the component is there. */
export function useSchedules(): Schedules {
  const client = useClient();
  const [known, setKnown] = useState<Known | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const present = useRef({
    known: null as Known | null,
    connection: 0,
    pages: 1,
    question: 0,
  });

  const ask = useCallback(async (): Promise<void> => {
    const own = present.current;
    own.question += 1;
    const { question, pages } = own;
    const schedules: Schedule[] = [];
    let more = true;
    const at = new Date(serverNow()).toISOString();
    for (let page = 0; page < pages && more; page += 1) {
      const after = schedules.at(-1)?.name ?? null;
      const { data, error } = await client.query(SchedulesDocument, { first: PAGE, after }).toPromise();
      // A later question has a later answer.
      if (own.question !== question) return;
      if (!data) return setProblem(error ? sentence(error) : null);
      schedules.push(...data.schedules);
      more = data.schedules.length === PAGE;
    }
    if (own.known && own.connection !== connections.value)
      sayCaughtUp(differenceOfSchedules(own.known, { schedules, more }));
    own.connection = connections.value;
    own.known = { schedules, more, at };
    setKnown(own.known);
    setProblem(null);
  }, [client]);

  useEffect(() => {
    void ask();
    const own = present.current;
    const whenShown = () => document.visibilityState === 'visible' && void ask();
    document.addEventListener('visibilitychange', whenShown);
    const whenConnected = connections.subscribe(() => void ask());
    let timer: ReturnType<typeof setTimeout> | undefined;
    let lost: Known | null = null;
    const whenStored = storeIsAway.subscribe(() => {
      clearTimeout(timer);
      if (storeIsAway.value) lost ??= own.known;
      else
        timer = setTimeout(async () => {
          await ask();
          if (lost && own.known) sayCaughtUp(differenceOfSchedules(lost, own.known));
          lost = null;
        }, READS_ON_WITHIN);
    });
    return () => {
      own.question += 1;
      document.removeEventListener('visibilitychange', whenShown);
      whenConnected();
      whenStored();
      clearTimeout(timer);
    };
  }, [ask]);

  // From each answer, or its failure, to the next one.
  useEffect(() => {
    if (known === null && problem === null) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    function wait(): void {
      timer = setTimeout(
        () => {
          if (document.visibilityState === 'visible' && line.value.state === 'open') void ask();
          wait();
        },
        asksAgainIn(known?.schedules ?? [], serverNow()),
      );
    }
    wait();
    return () => clearTimeout(timer);
  }, [ask, known, problem]);

  return {
    known,
    problem,
    ask,
    showMore() {
      present.current.pages += 1;
      return ask();
    },
  };
}
