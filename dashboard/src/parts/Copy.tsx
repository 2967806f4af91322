import { useEffect, useState } from 'react';

/** A button that copies a text, and says whether it could. */
export function Copy({ text, label = 'Copy' }: { text: string | (() => string); label?: string }) {
  const [said, setSaid] = useState('');
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(''), 2000);
    return () => clearTimeout(timer);
  }, [said]);

  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(typeof text === 'string' ? text : text());
      setSaid('Copied');
    } catch {
      setSaid('The browser does not allow copying');
    }
  }

  return (
    <button type="button" className="quiet" onClick={() => void copy()}>
      {said || label}
      <span className="visually-hidden" role="status">
        {said}
      </span>
    </button>
  );
}
