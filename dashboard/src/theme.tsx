// Dark or light: as the system says, unless the user says otherwise. It is kept in this browser, and nothing else is.

import { useState } from 'react';

const KEPT = 'gql-jobs:theme';
type Theme = 'system' | 'light' | 'dark';

function kept(): Theme {
  try {
    const theme = localStorage.getItem(KEPT);
    return theme === 'light' || theme === 'dark' ? theme : 'system';
  } catch {
    return 'system';
  }
}

function show(theme: Theme): void {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
show(kept());

export function ThemeChoice() {
  const [theme, setTheme] = useState(kept);
  function choose(chosen: Theme): void {
    setTheme(chosen);
    show(chosen);
    try {
      if (chosen === 'system') localStorage.removeItem(KEPT);
      else localStorage.setItem(KEPT, chosen);
    } catch {
      // It holds until the next load.
    }
  }
  return (
    <select aria-label="Theme" value={theme} onChange={(event) => choose(event.target.value as Theme)}>
      <option value="system">System theme</option>
      <option value="light">Light theme</option>
      <option value="dark">Dark theme</option>
    </select>
  );
}
