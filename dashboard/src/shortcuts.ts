// Keys that work anywhere on the page but where text is written.

import { useEffect, useRef } from 'react';

/** Keys as `KeyboardEvent.key` names them, two that follow each other with a space between: `g j`. */
export type Shortcuts = Record<string, () => void>;

const FOLLOWS_WITHIN = 1200;

const isWriting = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement &&
  (target.isContentEditable ||
    target.matches('input:not([type="checkbox"], [type="radio"]), textarea, select'));

/** Have the keys work for as long as the component is there, unless a dialog is open. */
export function useShortcuts(shortcuts: Shortcuts): void {
  const current = useRef(shortcuts);
  current.current = shortcuts;
  useEffect(() => {
    let first = '';
    let at = 0;
    function pressed(event: KeyboardEvent): void {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (isWriting(event.target) || document.querySelector('dialog[open]')) return;
      const both = `${first} ${event.key}`;
      const action =
        (event.timeStamp - at < FOLLOWS_WITHIN ? current.current[both] : undefined) ??
        current.current[event.key];
      first = event.key;
      at = event.timeStamp;
      if (!action) return;
      event.preventDefault();
      action();
    }
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, []);
}
