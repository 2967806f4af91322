import type { ReactNode } from 'react';

/** What went wrong, in a sentence that is read out. */
export function Problem({ children }: { children: ReactNode }) {
  return (
    <p className="problem" role="alert">
      {children}
    </p>
  );
}
