// A field with what it is called, what is said of it, and what is wrong with it.

import { createContext, type ReactNode, useContext, useId } from 'react';
import type { Problems } from './drafts';
import './forms.css';

/** What the fields of a form have in common. */
export const FormState = createContext<{ problems: Problems; secrets: ReadonlySet<string> }>({
  problems: {},
  secrets: new Set(),
});

/** Put the focus on the first of these fields that is on the page. Returns the paths of those that are not. */
export function focusFirst(form: HTMLElement | null, paths: readonly string[]): string[] {
  const wanted = new Set(paths);
  let first: HTMLElement | undefined;
  for (const element of form?.querySelectorAll<HTMLElement>('[data-path]') ?? [])
    if (wanted.delete(element.dataset.path ?? '')) first ??= element;
  first?.focus();
  return [...wanted];
}

/** A field with a label, a hint and a problem; the control is given what it needs to be named and described by them. */
export function Labelled({
  name,
  title = '',
  path,
  required = false,
  hint = '',
  children,
  beside,
}: {
  name: string;
  title?: string;
  path: string;
  required?: boolean;
  hint?: ReactNode;
  children: (control: Control) => ReactNode;
  beside?: ReactNode;
}) {
  const id = useId();
  const { problems, secrets } = useContext(FormState);
  const problem = problems[path];
  const secret = secrets.has(path);
  const described = [hint && `${id}-hint`, secret && `${id}-secret`, problem && `${id}-problem`].filter(
    Boolean,
  );
  return (
    <div className="form-field">
      <div className="row form-label">
        <label htmlFor={id}>
          <Name name={name} title={title} required={required} />
        </label>
        {beside}
      </div>
      {children({
        id,
        'data-path': path,
        'aria-required': required || undefined,
        'aria-invalid': problem ? true : undefined,
        'aria-describedby': described.join(' ') || undefined,
      })}
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {secret && (
        <p className="form-secret" id={`${id}-secret`}>
          The original has a secret here, which nobody is shown: type it anew.
        </p>
      )}
      {problem && (
        <p className="field-problem" id={`${id}-problem`}>
          {problem}
        </p>
      )}
    </div>
  );
}

export interface Control {
  id: string;
  'data-path': string;
  'aria-required': boolean | undefined;
  'aria-invalid': boolean | undefined;
  'aria-describedby': string | undefined;
}

/** The name of a field, as the API spells it. */
export function Name({ name, title, required }: { name: string; title: string; required: boolean }) {
  return (
    <>
      {title && `${title} `}
      <code>{name}</code>
      {required && (
        <span className="form-required" aria-hidden="true">
          {' '}
          *
        </span>
      )}
    </>
  );
}

/** A field for JSON. */
export function Json({
  control,
  text,
  onChange,
  placeholder,
  rows = 2,
}: {
  control: Partial<Control>;
  text: string;
  onChange: (text: string) => void;
  placeholder?: string;
  rows?: number;
}) {
  return (
    <textarea
      {...control}
      className="code grows"
      rows={rows}
      spellCheck={false}
      autoComplete="off"
      value={text}
      placeholder={placeholder}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}
