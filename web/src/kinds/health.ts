// How an object is, for any kind: a table of what is known of some kinds, else what the conditions say.
import type { Condition, KubeObject } from '../api/objects';
import { podHealth, type Health } from './pod_status';

export type { Health, Level } from './pod_status';

const condition = (object: KubeObject, type: string): Condition | undefined =>
  ((object.status?.conditions ?? []) as Condition[]).find((entry) => entry.type === type);

const stale = (object: KubeObject) => (object.status?.observedGeneration ?? object.metadata.generation) !== object.metadata.generation;

function counted(ready: number, wanted: number, what = 'ready'): Health {
  if (wanted === 0) return { level: 'idle', text: 'Scaled to 0' };
  if (ready >= wanted) return { level: 'ok', text: 'Available' };
  return { level: ready === 0 ? 'bad' : 'warn', text: `${ready} of ${wanted} ${what}` };
}

function deployment(object: KubeObject): Health {
  const progressing = condition(object, 'Progressing');
  const failure = condition(object, 'ReplicaFailure');
  const { spec, status = {} } = object;
  const wanted = spec.replicas ?? 1;
  if (failure?.status === 'True') return { level: 'bad', text: 'Replica failure', reason: failure.message };
  if (progressing?.status === 'False' && progressing.reason === 'ProgressDeadlineExceeded') return { level: 'bad', text: 'Rollout stalled', reason: progressing.message };
  if (spec.paused) return { level: 'idle', text: 'Paused' };
  const rolling = stale(object) || (status.updatedReplicas ?? 0) < wanted || (status.replicas ?? 0) > (status.updatedReplicas ?? 0);
  if (rolling) return { level: 'busy', text: 'Rolling out', reason: progressing?.message };
  return { ...counted(status.availableReplicas ?? 0, wanted, 'available'), reason: condition(object, 'Available')?.message };
}

function job(object: KubeObject): Health {
  const failed = condition(object, 'Failed');
  if (failed?.status === 'True') return { level: 'bad', text: 'Failed', reason: failed.message };
  if (condition(object, 'Complete')?.status === 'True') return { level: 'idle', text: 'Complete' };
  if (object.spec.suspend) return { level: 'idle', text: 'Suspended' };
  return { level: 'busy', text: 'Running' };
}

function node(object: KubeObject): Health {
  const ready = condition(object, 'Ready');
  if (ready?.status !== 'True') return { level: 'bad', text: 'Not ready', reason: ready?.message };
  const pressure = ((object.status.conditions ?? []) as Condition[]).find((entry) => entry.type !== 'Ready' && entry.status === 'True');
  if (pressure) return { level: 'warn', text: pressure.type, reason: pressure.message };
  return object.spec?.unschedulable ? { level: 'idle', text: 'Cordoned' } : { level: 'ok', text: 'Ready' };
}

const phases: Record<string, Health['level']> = { Active: 'ok', Bound: 'ok', Available: 'ok', Pending: 'busy', Terminating: 'busy', Released: 'warn', Lost: 'bad', Failed: 'bad' };
const byPhase = (object: KubeObject): Health => {
  const phase = String(object.status?.phase ?? 'Unknown');
  return { level: phases[phase] ?? 'idle', text: phase };
};

const KINDS: Record<string, (object: KubeObject) => Health> = {
  Pod: podHealth,
  Deployment: deployment,
  ReplicaSet: (object) => counted(object.status?.readyReplicas ?? 0, object.spec?.replicas ?? 1),
  ReplicationController: (object) => counted(object.status?.readyReplicas ?? 0, object.spec?.replicas ?? 1),
  StatefulSet: (object) => counted(object.status?.readyReplicas ?? 0, object.spec?.replicas ?? 1),
  DaemonSet: (object) => counted(object.status?.numberAvailable ?? 0, object.status?.desiredNumberScheduled ?? 0, 'available'),
  Job: job,
  CronJob: (object) => (object.spec?.suspend ? { level: 'idle', text: 'Suspended' } : { level: 'ok', text: object.status?.active?.length ? 'Running' : 'Scheduled' }),
  Node: node,
  Namespace: byPhase,
  PersistentVolume: byPhase,
  PersistentVolumeClaim: byPhase,
};

/** The health of an object, or undefined when nothing about it says how it is. */
export function healthOf(object: KubeObject, kind = object.kind): Health | undefined {
  if (object.metadata.deletionTimestamp && kind !== 'Pod') return { level: 'busy', text: 'Terminating' };
  const known = KINDS[kind ?? ''];
  if (known) return known(object);
  const ready = condition(object, 'Ready') ?? condition(object, 'Available');
  if (!ready) return undefined;
  return ready.status === 'True' ? { level: 'ok', text: ready.type } : { level: 'bad', text: `Not ${ready.type.toLowerCase()}`, reason: ready.message };
}
