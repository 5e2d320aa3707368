// Watch stores shared by all components that show the same list; a store that nobody shows is stopped after a while.
import { useMemo, useSyncExternalStore } from 'react';
import { stream } from './stream';
import { WatchStore, type Snapshot } from './watch_store';
import { onSessionEnd } from './client';
import type { KubeObject } from './objects';
import { withFields } from '../lib/selector';

const LINGER = 20_000;
const stores = new Map<string, WatchStore>();
const lingering = new Map<string, ReturnType<typeof setTimeout>>();
const NOTHING: Snapshot = { phase: 'live', items: [], version: 0 };

onSessionEnd(() => {
  for (const store of stores.values()) store.stop();
  stores.clear();
});

function storeOf(path: string): WatchStore {
  let store = stores.get(path);
  if (!store) {
    store = new WatchStore(path, stream);
    stores.set(path, store);
  }
  return store;
}

function retain(path: string, listener: () => void): () => void {
  clearTimeout(lingering.get(path));
  const store = storeOf(path);
  const unsubscribe = store.subscribe(listener);
  store.start();
  return () => {
    unsubscribe();
    if (store.watched) return;
    const drop = () => {
      if (store.watched) return;
      store.stop();
      stores.delete(path);
    };
    lingering.set(path, setTimeout(drop, LINGER));
  };
}

/** The live list at a path of the API, such as `/api/v1/pods`; undefined asks for nothing. */
export function useList(path: string | undefined): Snapshot {
  const [subscribe, snapshot] = useMemo(() => {
    if (!path) return [() => () => undefined, () => NOTHING] as const;
    return [(listener: () => void) => retain(path, listener), () => storeOf(path).snapshot] as const;
  }, [path]);
  return useSyncExternalStore(subscribe, snapshot);
}

export interface ObjectState {
  phase: Snapshot['phase'];
  object: KubeObject | undefined;
  /** The last state before it was deleted, so that an open page keeps its content. */
  deleted: boolean;
  error?: Snapshot['error'];
}

const lastSeen = new Map<string, KubeObject>();

/** One object, live: a watch with a field selector on its name. */
export function useObject(collection: string | undefined, name: string): ObjectState {
  const path = collection && `${collection}?${withFields({ 'metadata.name': name })}`;
  const list = useList(path);
  return useMemo(() => {
    const found = list.items[0];
    const key = path ?? '';
    if (found) lastSeen.set(key, found);
    else if (list.phase === 'loading') return { phase: list.phase, object: undefined, deleted: false };
    const object = found ?? lastSeen.get(key);
    return { phase: list.phase, object, deleted: !found && list.phase === 'live' && !!object, error: list.error };
  }, [list, path]);
}
