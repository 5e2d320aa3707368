// Which kinds the API server has: aggregated discovery, read when a session begins and again when kinds may have changed.
import { useSyncExternalStore } from 'react';
import { getJson } from './client';

/** One kind that can be listed. */
export interface Resource {
  group: string;
  version: string;
  resource: string;
  kind: string;
  namespaced: boolean;
  verbs: string[];
  shortNames: string[];
  subresources: string[];
}

interface Discovered {
  resource: string;
  responseKind?: { kind: string };
  scope: string;
  verbs: string[];
  shortNames?: string[];
  subresources?: { subresource: string }[];
}
interface GroupDiscovery {
  metadata: { name?: string };
  versions: { version: string; resources?: Discovered[] }[];
}

const ACCEPT = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

/** Of each group the first version that has the resource: the order is the server's preference. */
export function flatten(groups: GroupDiscovery[]): Resource[] {
  const found = new Map<string, Resource>();
  for (const group of groups) {
    const name = group.metadata.name ?? '';
    for (const { version, resources } of group.versions) {
      for (const entry of resources ?? []) {
        const key = `${name}/${entry.resource}`;
        if (found.has(key)) continue;
        found.set(key, {
          group: name,
          version,
          resource: entry.resource,
          kind: entry.responseKind?.kind ?? entry.resource,
          namespaced: entry.scope === 'Namespaced',
          verbs: entry.verbs,
          shortNames: entry.shortNames ?? [],
          subresources: (entry.subresources ?? []).map((sub) => sub.subresource),
        });
      }
    }
  }
  return [...found.values()];
}

export interface Catalogue {
  phase: 'loading' | 'ready' | 'failed';
  all: Resource[];
  error?: string;
}

let catalogue: Catalogue = { phase: 'loading', all: [] };
const listeners = new Set<() => void>();
let loading: Promise<void> | undefined;

function set(next: Catalogue) {
  catalogue = next;
  for (const listener of listeners) listener();
}

async function read(): Promise<void> {
  try {
    const get = (path: string) => getJson<{ items: GroupDiscovery[] }>(path, { headers: { Accept: ACCEPT } });
    const [core, named] = await Promise.all([get('/api'), get('/apis')]);
    const all = flatten([...core.items, ...named.items]);
    // The same again is no news: whoever shows the catalogue need not be drawn anew.
    if (catalogue.phase !== 'ready' || catalogue.error || JSON.stringify(all) !== JSON.stringify(catalogue.all)) set({ phase: 'ready', all });
  } catch (error) {
    // What was read before stands: kinds seldom change, and it is tried again.
    set({ phase: catalogue.phase === 'ready' ? 'ready' : 'failed', all: catalogue.all, error: (error as Error).message });
  } finally {
    loading = undefined;
  }
}

export function loadDiscovery(): Promise<void> {
  loading ??= read();
  return loading;
}

export function useCatalogue(): Catalogue {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      if (catalogue.phase === 'loading') void loadDiscovery();
      return () => listeners.delete(listener);
    },
    () => catalogue,
  );
}

export const currentCatalogue = () => catalogue;

export const findResource = (all: Resource[], group: string, resource: string) =>
  all.find((entry) => entry.group === group && entry.resource === resource);

export const findKind = (all: Resource[], apiVersion: string, kind: string) => {
  const group = apiVersion.includes('/') ? apiVersion.split('/')[0]! : '';
  return all.find((entry) => entry.kind === kind && entry.group === group && entry.verbs.includes('get'));
};

export const hasGroup = (all: Resource[], group: string) => all.some((entry) => entry.group === group);

export const apiVersionOf = (resource: Resource) => (resource.group ? `${resource.group}/${resource.version}` : resource.version);

export const prefixOf = (resource: Resource) => (resource.group ? `/apis/${resource.group}/${resource.version}` : `/api/${resource.version}`);

/** The path of a kind's collection, in one namespace or in all. */
export function collectionPath(resource: Resource, namespace?: string): string {
  const scope = resource.namespaced && namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${prefixOf(resource)}${scope}/${resource.resource}`;
}

export const objectPath = (resource: Resource, namespace: string | undefined, name: string) =>
  `${collectionPath(resource, namespace)}/${encodeURIComponent(name)}`;
