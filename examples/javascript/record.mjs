// What a client saw of a job. Prints it, cuts the line in the middle, and compares it with the job's history in the end.
import { ask, HISTORY } from './operations.mjs';
import { openLine } from './line.mjs';

const CUT_AFTER = 2;

export class Record {
  #cursors = [];
  #watched = 0;

  /** `url`: where a client finds the server, on a line that is going to be cut. */
  static async of(server = process.argv[2] ?? process.env.GQL_JOBS_URL ?? 'http://127.0.0.1:8000/graphql') {
    const record = new Record();
    record.server = server;
    record.line = await openLine(server);
    record.url = record.line.url;
    return record;
  }

  /** Start with the events that the job had when it was created. */
  begin(job) {
    this.id = job.id;
    job.events.forEach((event) => this.#add(event));
  }

  /** Where to go on: behind the last event. */
  get variables() {
    return { id: this.id, after: this.#cursors.at(-1) };
  }

  /** One more event of the subscription. */
  note(event) {
    this.#add(event);
    this.#watched += 1;
    if (this.#watched === CUT_AFTER) {
      console.log('-- the line is cut');
      this.line.cut();
    }
  }

  #add({ __typename, cursor, job }) {
    this.#cursors.push(cursor);
    console.log(cursor, __typename, job.status);
  }

  /** Exit with 0 if every event of the job's history was seen in its order, and none twice. */
  async compare() {
    this.line.end();
    const { job } = await ask(this.server, HISTORY, { id: this.id });
    const history = job.events.map(({ cursor }) => cursor);
    const seen = this.#cursors.filter((cursor) => history.includes(cursor));
    const isWhole = seen.join() === history.join() && new Set(this.#cursors).size === this.#cursors.length;
    const wasCut = this.#watched > CUT_AFTER;
    console.log(isWhole && wasCut ? 'complete: no gap, no repetition' : `incomplete: the history is ${history}`);
    process.exit(isWhole && wasCut ? 0 : 1);
  }
}
