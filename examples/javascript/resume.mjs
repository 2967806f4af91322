// Going on where the line was lost. Not for EventSource, which does so by itself.
import { setTimeout as wait } from 'node:timers/promises';

/** Call `watch` with the variables of the subscription until it comes to its end; wherever it fails, once more. */
export async function resumed(record, watch) {
  for (;;) {
    try {
      return await watch(record.variables);
    } catch (error) {
      console.log(`-- ${error.message || `closed with ${error.code}`}`);
      // At random, so that the clients of a lost server do not come back as one.
      await wait(1000 + Math.random() * 2000);
    }
  }
}
