// Kinds that run pods, and how to find a workload's pods.
import type { KubeObject } from '../api/objects';

export const WORKLOADS = ['apps/deployments', 'apps/statefulsets', 'apps/daemonsets', 'batch/jobs', 'batch/cronjobs'];

export const isWorkload = (group: string, resource: string): boolean =>
  [...WORKLOADS, 'apps/replicasets', '/replicationcontrollers'].includes(`${group}/${resource}`);

/** The label selector of a workload in the API's query form, or undefined when it has none. */
export function selectorQuery(object: KubeObject): string | undefined {
  const selector = object.spec?.selector;
  if (!selector) return undefined;
  const labels = selector.matchLabels ?? (selector.matchExpressions ? {} : selector);
  const equal = Object.entries(labels as Record<string, string>).map(([key, value]) => `${key}=${value}`);
  const sets = ((selector.matchExpressions ?? []) as { key: string; operator: string; values?: string[] }[]).map(({ key, operator, values }) =>
    operator === 'Exists' ? key : operator === 'DoesNotExist' ? `!${key}` : `${key} ${operator === 'In' ? 'in' : 'notin'} (${(values ?? []).join(',')})`);
  return [...equal, ...sets].join(',') || undefined;
}

export const podTemplate = (object: KubeObject) => object.spec?.template ?? object.spec?.jobTemplate?.spec?.template;
