// Kinds come and go while the dashboard is open: with custom resources, with aggregated APIs, and with another version of
// the server after a lost connection. Whenever one of those says so, discovery is read anew.
import { useEffect, useRef, useSyncExternalStore } from 'react';
import { collectionPath, findResource, loadDiscovery, useCatalogue } from './discovery';
import { useListable } from './rights';
import { stream } from './stream';
import { useList } from './use_list';

/** The kinds whose objects bring further kinds. */
const SOURCES = [['apiextensions.k8s.io', 'customresourcedefinitions'], ['apiregistration.k8s.io', 'apiservices']] as const;

function useSource([group, name]: (typeof SOURCES)[number], listable: (group: string, resource: string) => boolean) {
  const resource = findResource(useCatalogue().all, group, name);
  const list = useList(resource && listable(group, name) ? collectionPath(resource) : undefined);
  const seen = useRef<number | undefined>(undefined);
  useEffect(() => {
    if (list.phase !== 'live') return;
    // What the first list holds, discovery had too.
    if (seen.current !== undefined && seen.current !== list.version) void loadDiscovery();
    seen.current = list.version;
  }, [list.phase, list.version]);
}

/** Keeps the catalogue true for as long as it is mounted. */
export function useFreshDiscovery() {
  const listable = useListable('');
  useSource(SOURCES[0], listable);
  useSource(SOURCES[1], listable);
  const state = useSyncExternalStore(stream.subscribe, () => stream.state);
  const before = useRef(state);
  useEffect(() => {
    if (state === 'live' && before.current === 'reconnecting') void loadDiscovery();
    before.current = state;
  }, [state]);
}

/** Looks again, once, for a kind that the catalogue lacks: it may be newer than the catalogue. */
export function useLookAgain(missing: boolean, key: string) {
  useEffect(() => {
    if (missing) void loadDiscovery();
  }, [missing, key]);
}
