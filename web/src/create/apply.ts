// Applies objects by server-side apply, as a dry run or for real, one after the other: a namespace before what is in it.
import { APPLY_PATCH, FIELD_MANAGER, getObject, write, ApiError } from '../api/client';
import { collectionPath, findKind, objectPath, type Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { editable, toYaml } from '../lib/yaml';

export interface Outcome {
  object: KubeObject;
  resource?: Resource;
  result: 'created' | 'changed' | 'unchanged' | 'failed';
  error?: Error;
  warnings: string[];
  before?: string;
  after?: string;
}

const FIRST = ['Namespace', 'CustomResourceDefinition', 'ServiceAccount', 'Secret', 'ConfigMap'];
const rank = (object: KubeObject) => (FIRST.indexOf(object.kind ?? '') + 1 || FIRST.length + 1);

export const inOrder = (objects: KubeObject[]): KubeObject[] => [...objects].sort((left, right) => rank(left) - rank(right));

export function withNamespace(object: KubeObject, resource: Resource, namespace: string): KubeObject {
  if (!resource.namespaced) return object;
  return { ...object, metadata: { ...object.metadata, namespace: object.metadata.namespace ?? namespace } };
}

async function existing(path: string): Promise<KubeObject | undefined> {
  try {
    return await getObject(path);
  } catch (error) {
    if (error instanceof ApiError && (error.code === 404 || error.code === 403)) return undefined;
    throw error;
  }
}

async function applyOne(object: KubeObject, resource: Resource, dryRun: boolean, force: boolean): Promise<Omit<Outcome, 'object' | 'resource'>> {
  const query = `fieldManager=${FIELD_MANAGER}&fieldValidation=Strict${dryRun ? '&dryRun=All' : ''}`;
  if (!object.metadata.name) {
    const { warnings } = await write('POST', `${collectionPath(resource, object.metadata.namespace)}?${query}`, object);
    return { result: 'created', warnings };
  }
  const path = objectPath(resource, object.metadata.namespace, object.metadata.name);
  const before = await existing(path);
  const applied = await write('PATCH', `${path}?${query}${force ? '&force=true' : ''}`, object, APPLY_PATCH);
  const text = (of: KubeObject) => toYaml(editable(of));
  const [old, now] = [before ? text(before) : '', text(applied.object)];
  return { result: !before ? 'created' : old === now ? 'unchanged' : 'changed', warnings: applied.warnings, before: old, after: now };
}

export async function applyAll(objects: KubeObject[], all: Resource[], namespace: string, dryRun: boolean, force: boolean, report: (outcomes: Outcome[]) => void): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const raw of inOrder(objects)) {
    const resource = findKind(all, raw.apiVersion ?? '', raw.kind ?? '');
    const object = resource ? withNamespace(raw, resource, namespace) : raw;
    try {
      if (!resource) throw new Error(`The server has no kind ${raw.kind} in ${raw.apiVersion}.`);
      outcomes.push({ object, resource, ...(await applyOne(object, resource, dryRun, force)) });
    } catch (error) {
      outcomes.push({ object, resource, result: 'failed', error: error as Error, warnings: [] });
    }
    report([...outcomes]);
  }
  return outcomes;
}
