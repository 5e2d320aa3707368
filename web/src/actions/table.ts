// What can be done to objects: one row for each action. A button appears on the pages of the kinds in `on`; it is
// disabled, with the reason, when the user lacks the right or the object is not in a state for it.
import { lazy, type ComponentType } from 'react';
import type { Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import type { Question } from '../api/rights';
import { cordon, patchSpec, restart, triggerCronJob } from './writes';

export interface DialogProps {
  resource: Resource;
  object: KubeObject;
  onClose(): void;
}

export interface Action {
  id: string;
  label: string;
  /** `group/resource` of the kinds; `*` for every kind. */
  on: string[];
  verb: string;
  /** The subresource that is written, where the kind has it. */
  subresource?: string;
  /** Another kind than the object's that is written. */
  writes?: { group: string; resource: string };
  tone?: 'danger';
  /** Why it makes no sense for this object now; then the button is left out. */
  unfit?(object: KubeObject): string | undefined;
  /** What a plain action says before, does, and says after. */
  confirm?(object: KubeObject): string;
  run?(resource: Resource, object: KubeObject): Promise<string>;
  dialog?: ComponentType<DialogProps>;
}

const ROLLED = ['apps/deployments', 'apps/statefulsets', 'apps/daemonsets'];
const SCALED = ['apps/deployments', 'apps/statefulsets', 'apps/replicasets', '/replicationcontrollers'];
const is = (wanted: boolean, reason: string) => (wanted ? undefined : reason);

export const ACTIONS: Action[] = [
  { id: 'scale', label: 'Scale', on: SCALED, verb: 'patch', subresource: 'scale', dialog: lazy(() => import('./scale')) },
  { id: 'restart', label: 'Restart', on: ROLLED, verb: 'patch', run: restart,
    confirm: (object) => `All pods of ${object.metadata.name} are replaced, as its update strategy says.` },
  { id: 'rollback', label: 'Roll back', on: ROLLED, verb: 'patch', dialog: lazy(() => import('./rollback')) },
  { id: 'pause', label: 'Pause', on: ['apps/deployments'], verb: 'patch', unfit: (object) => is(!object.spec?.paused, 'already paused'),
    confirm: () => 'Changes of the pod template are not rolled out until it is resumed.', run: patchSpec({ paused: true }, 'paused') },
  { id: 'resume', label: 'Resume', on: ['apps/deployments'], verb: 'patch', unfit: (object) => is(!!object.spec?.paused, 'not paused'),
    confirm: () => 'Changes made while it was paused are rolled out.', run: patchSpec({ paused: false }, 'resumed') },
  { id: 'suspend', label: 'Suspend', on: ['batch/cronjobs', 'batch/jobs'], verb: 'patch', unfit: (object) => is(!object.spec?.suspend && !object.status?.completionTime, 'already suspended or complete'),
    confirm: () => 'No new pods are started until it is resumed.', run: patchSpec({ suspend: true }, 'suspended') },
  { id: 'unsuspend', label: 'Resume', on: ['batch/cronjobs', 'batch/jobs'], verb: 'patch', unfit: (object) => is(!!object.spec?.suspend, 'not suspended'),
    confirm: () => 'It runs again as its specification says.', run: patchSpec({ suspend: false }, 'resumed') },
  { id: 'trigger', label: 'Run now', on: ['batch/cronjobs'], verb: 'create', writes: { group: 'batch', resource: 'jobs' },
    confirm: (object) => `A Job is created from the template of ${object.metadata.name}, apart from its schedule.`, run: triggerCronJob },
  { id: 'cordon', label: 'Cordon', on: ['/nodes'], verb: 'patch', unfit: (object) => is(!object.spec?.unschedulable, 'already cordoned'),
    confirm: () => 'No new pods are scheduled to this node; those on it stay.', run: cordon(true) },
  { id: 'uncordon', label: 'Uncordon', on: ['/nodes'], verb: 'patch', unfit: (object) => is(!!object.spec?.unschedulable, 'not cordoned'),
    confirm: () => 'Pods may be scheduled to this node again.', run: cordon(false) },
  { id: 'drain', label: 'Drain', on: ['/nodes'], verb: 'create', writes: { group: '', resource: 'pods' }, subresource: 'eviction', tone: 'danger', dialog: lazy(() => import('./drain')) },
  { id: 'resize', label: 'Resize', on: ['/pods'], verb: 'patch', subresource: 'resize', dialog: lazy(() => import('./resize')),
    unfit: (object) => is(!object.metadata.deletionTimestamp && !['Succeeded', 'Failed'].includes(object.status?.phase), 'it has ended') },
  { id: 'delete', label: 'Delete', on: ['*'], verb: 'delete', tone: 'danger', dialog: lazy(() => import('./delete')) },
];

export const actionsFor = (resource: Resource): Action[] =>
  ACTIONS.filter((action) => action.on.includes(`${resource.group}/${resource.resource}`) || (action.on.includes('*') && resource.verbs.includes('delete')));

/** The right that an action needs on an object. */
export function questionOf(action: Action, resource: Resource, object: KubeObject): Question {
  const { group, resource: name } = action.writes ?? resource;
  // A kind without the subresource is written itself: see scale.tsx.
  const subresource = action.writes || resource.subresources.includes(action.subresource ?? '') ? action.subresource : undefined;
  return { verb: action.verb, group, resource: name, subresource, namespace: object.metadata.namespace, name: action.verb === 'create' ? undefined : object.metadata.name };
}
