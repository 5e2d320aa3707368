// Short messages about what an action did; they go by themselves, errors stay until closed.
import { useSyncExternalStore } from 'react';
import { Button } from './basics';

interface Toast {
  id: number;
  tone: 'ok' | 'bad' | 'warn';
  text: string;
}

let toasts: Toast[] = [];
let nextId = 1;
const listeners = new Set<() => void>();
const STAYS = 6000;

function set(next: Toast[]) {
  toasts = next;
  for (const listener of listeners) listener();
}

const close = (id: number) => set(toasts.filter((toast) => toast.id !== id));

export function toast(text: string, tone: Toast['tone'] = 'ok') {
  const id = nextId++;
  set([...toasts.slice(-4), { id, tone, text }]);
  if (tone === 'ok') setTimeout(() => close(id), STAYS);
}

export function Toasts() {
  const shown = useSyncExternalStore((listener) => { listeners.add(listener); return () => listeners.delete(listener); }, () => toasts);
  return (
    <div className="toasts" role="status" aria-live="polite">
      {shown.map((entry) => (
        <div key={entry.id} className={`toast toast-${entry.tone}`}><span className="pre">{entry.text}</span><Button tone="quiet" aria-label="Dismiss" onClick={() => close(entry.id)}>×</Button></div>
      ))}
    </div>
  );
}
