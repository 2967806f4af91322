// When what is being entered would be due, asked of the server while it is entered.

import type { CombinedError } from '@urql/core';
import { useEffect, useState } from 'react';
import { useClient } from 'urql';
import { connections, sentence } from '../../api/connection';
import { PreviewOfScheduleDocument } from '../../api/generated';
import { useObservable } from '../../api/observable';
import type { Problems } from '../../parts/form/drafts';
import { OPTION } from '../../parts/form/problems';
import { Problem } from '../../parts/Problem';
import { Until } from '../../parts/time';
import { type Definition, recurrenceOf } from './definition';
import { momentIn, whenInWords } from './when';

/** Milliseconds after which somebody who writes has paused. */
const SETTLES = 400;

export interface Previewed {
  /** What was asked for; null while it is not complete. */
  asked: { cron: string | null; everySeconds: number | null; timeZone: string } | null;
  /** Null until the answer is there, and where there is none. */
  runs: readonly string[] | null;
  /** What the server says is wrong, at its fields. */
  faults: Problems;
  /** Why there is no answer, where no field is at fault. */
  problem: string | null;
}

const NOTHING: Previewed = { asked: null, runs: null, faults: {}, problem: null };

/** When a definition would be due. What was asked for before is not shown for what is entered now. */
export function usePreview(definition: Definition): Previewed {
  const client = useClient();
  const given = recurrenceOf(definition, {});
  const timeZone = definition.timeZone.trim();
  const cron = given && 'cron' in given ? given.cron : null;
  const everySeconds = given && 'everySeconds' in given ? Number(given.everySeconds.value) : null;
  const key = given && timeZone !== '' ? JSON.stringify([cron, everySeconds, timeZone]) : '';
  const [previewed, setPreviewed] = useState<Previewed & { key: string }>({ ...NOTHING, key: '' });
  // What did not come because there was no connection is asked for when there is one.
  const connected = useObservable(connections);
  useEffect(() => {
    if (key === '') return;
    let over = false;
    const asked = { cron, everySeconds, timeZone };
    const timer = setTimeout(async () => {
      const { data, error } = await client.query(PreviewOfScheduleDocument, asked).toPromise();
      if (over) return;
      const runs = data?.schedulePreview ?? null;
      const faults = error ? faultsAt(error) : {};
      const isSaid = Object.keys(faults).length > 0;
      setPreviewed({ key, asked, runs, faults, problem: error && !isSaid ? sentence(error) : null });
    }, SETTLES);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [client, key, connected]);
  return previewed.key === key ? previewed : NOTHING;
}

function faultsAt({ graphQLErrors }: CombinedError): Problems {
  const faults: Problems = {};
  for (const { message, extensions } of graphQLErrors)
    if (typeof extensions?.argument === 'string') faults[`${OPTION}${extensions.argument}`] = message;
  return faults;
}

/** The words and the moments of a preview. */
export function Preview({ previewed: { asked, runs, problem } }: { previewed: Previewed }) {
  const zone = asked?.everySeconds == null ? (asked?.timeZone ?? 'UTC') : 'UTC';
  const words = asked && runs ? whenInWords(asked) : null;
  return (
    <section className="schedule-preview" aria-label="When it would be due">
      {problem !== null && <Problem>{problem}</Problem>}
      <p role="status" className="schedule-when">
        {words}
      </p>
      {runs && runs.length > 0 && (
        <ol className="schedule-runs">
          {runs.map((at) => (
            <li key={at}>
              {momentIn(zone, at)}{' '}
              <span className="hint">
                <Until at={at} />
              </span>
            </li>
          ))}
        </ol>
      )}
      {!runs && problem === null && <p className="hint">Its next moments are shown here.</p>}
    </section>
  );
}
