/** A value that can be read at any time, and that says when it has changed. */
export interface Observable<Value> {
  readonly value: Value;
  /** Have the listener called after each change; what is returned ends that. */
  subscribe(listener: () => void): () => void;
}

export class Variable<Value> implements Observable<Value> {
  private readonly listeners = new Set<() => void>();

  constructor(private current: Value) {}

  get value(): Value {
    return this.current;
  }

  set(value: Value): void {
    if (Object.is(value, this.current)) return;
    this.current = value;
    for (const listener of [...this.listeners]) listener();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
