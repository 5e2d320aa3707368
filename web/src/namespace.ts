// The namespace that lists are limited to; empty for all. An address with `ns` wins, else what was chosen last.
import { useEffect, useSyncExternalStore } from 'react';
import { setQuery, useLocation } from './router';

const KEY = 'windlass-namespace';
let chosen = typeof localStorage === 'undefined' ? '' : (localStorage.getItem(KEY) ?? '');
const listeners = new Set<() => void>();

function store(namespace: string) {
  if (namespace === chosen) return;
  chosen = namespace;
  localStorage.setItem(KEY, namespace);
  for (const listener of listeners) listener();
}

export function chooseNamespace(namespace: string) {
  store(namespace);
  if (new URLSearchParams(location.search).has('ns') || location.pathname.startsWith('/list/')) setQuery({ ns: namespace || '*' });
}

export function useNamespace(): string {
  const { query } = useLocation();
  const stored = useSyncExternalStore((listener) => { listeners.add(listener); return () => listeners.delete(listener); }, () => chosen);
  const asked = query.get('ns');
  const namespace = asked === null ? stored : asked === '*' ? '' : asked;
  useEffect(() => store(namespace), [namespace]);
  return namespace;
}
