// The limits of a queue: what they are, and for somebody who may change them the button that leads to that.

import { Suspense, useState } from 'react';
import { canSteerQueues } from '../../api/session';
import { lazily } from '../../parts/lazily';
import { limitsSaid, type Queue } from './figures';

const LimitsDialog = lazily(() => import('./LimitsDialog'));

export function QueueLimits({ queue: { name, limits } }: { queue: Queue }) {
  const [asks, setAsks] = useState(false);
  const said = limitsSaid(limits);
  return (
    <>
      {said.length > 0 && (
        <ul className="limits">
          {said.map((one) => (
            <li key={one}>{one}</li>
          ))}
        </ul>
      )}
      {canSteerQueues() && (
        <button type="button" className="quiet" aria-label={`Limit ${name}…`} onClick={() => setAsks(true)}>
          Limit…
        </button>
      )}
      {asks && (
        <Suspense fallback={null}>
          <LimitsDialog name={name} limits={limits} onClose={() => setAsks(false)} />
        </Suspense>
      )}
    </>
  );
}
