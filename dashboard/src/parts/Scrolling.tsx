import type { KeyboardEventHandler, ReactNode, Ref, UIEventHandler } from 'react';

/** A part of the page that scrolls by itself, and that a keyboard reaches for that. */
export function Scrolling({
  label,
  className,
  ref,
  onScroll,
  onKeyDown,
  children,
}: {
  label: string;
  className: string;
  ref?: Ref<HTMLElement>;
  onScroll?: UIEventHandler<HTMLElement>;
  onKeyDown?: KeyboardEventHandler<HTMLElement>;
  children: ReactNode;
}) {
  return (
    <section
      ref={ref}
      className={className}
      aria-label={label}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: without the focus, no key could scroll it
      tabIndex={0}
      onScroll={onScroll}
      onKeyDown={onKeyDown}
    >
      {children}
    </section>
  );
}
