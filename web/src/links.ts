// Addresses of pages. `core` stands for the group without a name, `-` for no namespace.
import { currentCatalogue, findKind } from './api/discovery';
import type { KubeObject } from './api/objects';

const part = encodeURIComponent;

export const listLink = (group: string, resource: string, query = '') => `/list/${group || 'core'}/${part(resource)}${query}`;

export const objectLink = (group: string, resource: string, namespace: string | undefined, name: string, tab = '') =>
  `/object/${group || 'core'}/${part(resource)}/${namespace ? part(namespace) : '-'}/${part(name)}${tab ? `/${tab}` : ''}`;

/** The page of something that is known by kind, as in an owner reference; undefined when discovery lacks the kind. */
export function kindLink(apiVersion: string, kind: string, namespace: string | undefined, name: string): string | undefined {
  const resource = findKind(currentCatalogue().all, apiVersion, kind);
  return resource && objectLink(resource.group, resource.resource, resource.namespaced ? namespace : undefined, name);
}

export const linkOf = (group: string, resource: string, object: KubeObject, tab = '') =>
  objectLink(group, resource, object.metadata.namespace, object.metadata.name, tab);
