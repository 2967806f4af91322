// Asks whether a job is to be deleted, and says what that means.

import { useState } from 'react';
import { useClient } from 'urql';
import { sentence } from '../../api/connection';
import { DeleteJobDocument } from '../../api/generated';
import { ENDED, short } from '../../format';
import { Dialog } from '../../parts/Dialog';
import { Problem } from '../../parts/Problem';
import { Said } from '../../parts/Said';
import type { Facts } from './watch';

/** `onDelete` is called once nothing is left of the job, `onClose` if it stays. */
export function DeleteDialog({
  facts: { id, type, status },
  onDelete,
  onClose,
}: {
  facts: Facts;
  onDelete: () => void;
  onClose: () => void;
}) {
  const client = useClient();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState('');

  async function remove(): Promise<void> {
    setBusy(true);
    setProblem('');
    const { error } = await client.mutation(DeleteJobDocument, { id }).toPromise();
    setBusy(false);
    if (error) setProblem(sentence(error, true));
    else onDelete();
  }

  return (
    <Dialog title="Delete this job?" onClose={onClose}>
      <p>
        All that is stored of job <code>{short(id)}</code> of type <Said>{type}</Said> is deleted, everywhere:
        its payload, its result and its errors, its history, its files, its checkpoints and its dead letter.
        {!ENDED.has(status) && ' It will not run.'}
      </p>
      <p>
        Its idempotency key is free again, and jobs that are to run after it count it as not completed. Jobs
        that it has created, or that were made from it, stay as they are.
      </p>
      <p>
        <strong>This cannot be undone.</strong>
      </p>
      {problem && <Problem>{problem}</Problem>}
      <div className="row">
        <button type="button" className="danger" disabled={busy} onClick={() => void remove()}>
          {busy ? 'Deleting…' : 'Delete the job'}
        </button>
        <button type="button" onClick={onClose}>
          Keep it
        </button>
      </div>
    </Dialog>
  );
}
