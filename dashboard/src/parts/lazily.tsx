// Parts of the page that are loaded when they are needed, or when there is time: later their server may be away, or may
// have been replaced by another version that does not have them.

import { Component, type ComponentType, lazy, type ReactNode } from 'react';
import { line } from '../api/connection';

const FAILURES = 3;
const known = new Set<() => Promise<unknown>>();

const opened = (): Promise<void> =>
  new Promise((resolve) => {
    if (line.value.state === 'open') return resolve();
    const stop = line.subscribe(() => {
      if (line.value.state !== 'open') return;
      stop();
      resolve();
    });
  });

async function tried<Module>(load: () => Promise<Module>): Promise<Module> {
  for (let failures = 0; ; ) {
    try {
      return await load();
    } catch (error) {
      // With a connection it is not the network that is at fault.
      if (line.value.state === 'open') failures += 1;
      if (failures >= FAILURES) throw error;
      await Promise.all([opened(), new Promise((resolve) => setTimeout(resolve, 1000))]);
    }
  }
}

/** A component that is loaded when it is first shown, or by `loadTheRest`. It waits for a connection that is lost. */
export function lazily<Properties extends object>(
  load: () => Promise<{ default: ComponentType<Properties> }>,
): ComponentType<Properties> {
  known.add(load);
  return lazy(() => tried(load)) as unknown as ComponentType<Properties>;
}

/** Load all that is not there yet, so that every page opens when the server is away. */
export async function loadTheRest(): Promise<void> {
  for (const load of known) await tried(load).catch(() => undefined);
}

/** Shows, in the place of a part that has failed, that it has, and offers to load the page anew. */
export class Failures extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static getDerivedStateFromError(error: Error): { error: Error } {
    return { error };
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <div className="problem" role="alert">
        <p>This part of the page has failed, or the server has another version by now: {error.message}</p>
        <button type="button" onClick={() => location.reload()}>
          Load the page anew
        </button>
      </div>
    );
  }
}
