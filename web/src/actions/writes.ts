// The writes behind plain actions; each answers the sentence that tells what was done.
import { FIELD_MANAGER, MERGE_PATCH, write } from '../api/client';
import { objectPath, type Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';

const pathOf = (resource: Resource, object: KubeObject) => objectPath(resource, object.metadata.namespace, object.metadata.name);
const MANAGED = `fieldManager=${FIELD_MANAGER}`;

export async function mergePatch(resource: Resource, object: KubeObject, patch: unknown): Promise<KubeObject> {
  return (await write('PATCH', `${pathOf(resource, object)}?${MANAGED}`, patch, MERGE_PATCH)).object;
}

export const patchSpec = (spec: Record<string, unknown>, done: string) => async (resource: Resource, object: KubeObject) => {
  await mergePatch(resource, object, { spec });
  return `${object.metadata.name} is ${done}.`;
};

export const cordon = (unschedulable: boolean) => patchSpec({ unschedulable: unschedulable || null }, unschedulable ? 'cordoned' : 'uncordoned');

export async function restart(resource: Resource, object: KubeObject): Promise<string> {
  // The annotation kubectl writes, so that both tools see each other's restarts.
  const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date().toISOString() };
  await mergePatch(resource, object, { spec: { template: { metadata: { annotations } } } });
  return `${object.metadata.name} is restarting.`;
}

export async function scale(resource: Resource, object: KubeObject, replicas: number): Promise<string> {
  const path = resource.subresources.includes('scale') ? `${pathOf(resource, object)}/scale` : pathOf(resource, object);
  await write('PATCH', `${path}?${MANAGED}`, { spec: { replicas } }, MERGE_PATCH);
  return `${object.metadata.name} is scaled to ${replicas}.`;
}

export async function triggerCronJob(_resource: Resource, object: KubeObject): Promise<string> {
  const { name, namespace, uid } = object.metadata;
  const template = object.spec.jobTemplate as { metadata?: KubeObject['metadata']; spec: unknown };
  const job = {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: `${name.slice(0, 40)}-manual-${Date.now().toString(36)}`,
      namespace,
      labels: template.metadata?.labels,
      annotations: { ...template.metadata?.annotations, 'cronjob.kubernetes.io/instantiate': 'manual' },
      ownerReferences: [{ apiVersion: 'batch/v1', kind: 'CronJob', name, uid, controller: true }],
    },
    spec: template.spec,
  };
  const { object: created } = await write('POST', `/apis/batch/v1/namespaces/${namespace}/jobs?${MANAGED}`, job);
  return `Job ${created.metadata.name} is created.`;
}

export type Cascade = 'Background' | 'Foreground' | 'Orphan';

export async function remove(resource: Resource, object: KubeObject, cascade: Cascade, gracePeriodSeconds?: number): Promise<string> {
  const options = { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: cascade, gracePeriodSeconds, preconditions: { uid: object.metadata.uid } };
  await write('DELETE', pathOf(resource, object), options);
  return `${resource.kind} ${object.metadata.name} is being deleted.`;
}
