// One clock for all ages on a page. A component rerenders only when its own text changes.
import { useSyncExternalStore } from 'react';

const listeners = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void) {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = Date.now();
    for (const each of listeners) each();
  }, 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** What `render` makes of the time; must be a primitive. */
export const useClock = <T extends string | number>(render: (now: number) => T): T => useSyncExternalStore(subscribe, () => render(Math.max(now, 0)));
