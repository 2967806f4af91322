import { JobsProvider } from '@gql-jobs/client/react';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App';
import { client } from './client';

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <JobsProvider client={client}>
        <App />
      </JobsProvider>
    </StrictMode>,
  );
}
