// Where the user is: kept in the fragment of the address, as `#/jobs?status=QUEUED`, so that the page works below any
// path of any proxy, and so that no server and no log learns what is looked at.

import { useSyncExternalStore } from 'react';

export interface Route {
  /** The page's path without slashes around it; empty for the first page. */
  path: string;
  parameters: URLSearchParams;
}

let last: { hash: string; route: Route } | undefined;

function current(): Route {
  const { hash } = location;
  if (last?.hash !== hash) {
    const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?', 2);
    last = { hash, route: { path: path.replace(/\/+$/, ''), parameters: new URLSearchParams(search) } };
  }
  return last.route;
}

function subscribe(listener: () => void): () => void {
  addEventListener('hashchange', listener);
  return () => removeEventListener('hashchange', listener);
}

/** The route as of now; the component is rendered again when it changes. */
export const useRoute = (): Route => useSyncExternalStore(subscribe, current);

/** The address of a page of this dashboard. Parameters that are null or empty are left out. */
export function href(
  path: string,
  parameters: Record<string, string | string[] | null | undefined> = {},
): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of Array.isArray(value) ? value : [value]) if (one) search.append(name, one);
  const text = search.toString();
  return `#/${path}${text && `?${text}`}`;
}

/** Go to an address that `href` gave. With `replace`, going back skips the present one. */
export function go(address: string, replace = false): void {
  if (replace) history.replaceState(history.state, '', address);
  else if (address !== location.hash) history.pushState(null, '', address);
  // At once: a browser says it later, and until then a field that follows the address would show what it was before.
  dispatchEvent(new HashChangeEvent('hashchange'));
}
