// Light or dark: what the system says, or what the user chose, kept in this browser.
import { useSyncExternalStore } from 'react';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'windlass-theme';
const listeners = new Set<() => void>();

const stored = (): Theme => {
  const value = typeof localStorage === 'undefined' ? null : localStorage.getItem(KEY);
  return value === 'light' || value === 'dark' ? value : 'system';
};
let theme = stored();

export function applyTheme() {
  if (theme === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
}

export function setTheme(next: Theme) {
  theme = next;
  localStorage.setItem(KEY, next);
  applyTheme();
  for (const listener of listeners) listener();
}

export const useTheme = () => useSyncExternalStore((listener) => { listeners.add(listener); return () => listeners.delete(listener); }, () => theme);
