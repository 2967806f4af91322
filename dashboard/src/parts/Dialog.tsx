import { type ReactNode, useContext, useEffect, useId, useRef } from 'react';
import { Doubt, isStale, TrustContext } from '../ConnectionState';

/**
 * A modal dialog. The browser keeps the focus in it, and gives it back when it is closed. All else is out of reach while
 * it is open, for who listens as well, so it says itself when the connection is lost.
 */
export function Dialog({
  title,
  onClose,
  children,
}: {
  title: string;
  onClose: () => void;
  children: ReactNode;
}) {
  const element = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const stale = isStale(useContext(TrustContext));
  useEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      aria-labelledby={heading}
      data-stale={stale || undefined}
      onCancel={onClose}
      onClose={onClose}
    >
      <header>
        <h2 id={heading}>{title}</h2>
        <button type="button" className="quiet" onClick={onClose} aria-label="Close">
          ✕
        </button>
      </header>
      <Doubt />
      {children}
    </dialog>
  );
}
