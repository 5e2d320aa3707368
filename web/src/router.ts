// History routing: the path and query of the address bar are the state; links are plain anchors that stay in the page.
//
// A route pattern has parameters as `:name`; an optional last part ends in `?`. Namespace `-` stands for cluster scope.
import { useSyncExternalStore } from 'react';

export interface Location {
  path: string;
  query: URLSearchParams;
}

const listeners = new Set<() => void>();
let current: Location = read();
/** Asks before leaving when a page holds unsaved work. */
let guard: (() => boolean) | undefined;

function read(): Location {
  if (typeof location === 'undefined') return { path: '/', query: new URLSearchParams() };
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

function changed() {
  current = read();
  for (const listener of listeners) listener();
}

if (typeof window !== 'undefined') window.addEventListener('popstate', changed);

export function setLeaveGuard(next: (() => boolean) | undefined) {
  guard = next;
}

export function navigate(to: string, options: { replace?: boolean } = {}) {
  const leavesPage = new URL(to, location.href).pathname !== location.pathname;
  if (leavesPage && guard && !guard()) return;
  history[options.replace ? 'replaceState' : 'pushState'](null, '', to);
  changed();
  if (!options.replace) window.scrollTo(0, 0);
}

/** Sets parameters of the query in place; empty ones go. */
export function setQuery(values: Record<string, string | undefined>, push = false) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  navigate(`${location.pathname}${text ? `?${text}` : ''}`, { replace: !push });
}

export const useLocation = (): Location =>
  useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );

/** Matches a path against a pattern; the decoded parameters, or undefined. */
export function match(pattern: string, path: string): Record<string, string> | undefined {
  const wanted = pattern.split('/').filter(Boolean);
  const parts = path.split('/').filter(Boolean);
  if (parts.length > wanted.length) return undefined;
  const found: Record<string, string> = {};
  for (const [index, piece] of wanted.entries()) {
    const part = parts[index];
    const name = piece.startsWith(':') ? piece.slice(1).replace('?', '') : undefined;
    if (part === undefined) {
      if (piece.endsWith('?')) continue;
      return undefined;
    }
    if (!name) {
      if (piece !== part) return undefined;
      continue;
    }
    try {
      found[name] = decodeURIComponent(part);
    } catch {
      return undefined;
    }
  }
  return found;
}
