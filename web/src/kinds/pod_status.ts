// The one word that says how a pod is, computed as kubectl computes it, and how worried to be about it.
import type { KubeObject } from '../api/objects';

export type Level = 'ok' | 'busy' | 'warn' | 'bad' | 'idle';

export interface Health {
  level: Level;
  text: string;
  /** Why, in the words of the API. */
  reason?: string;
}

export interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string };
  terminated?: { reason?: string; message?: string; exitCode?: number; signal?: number; startedAt?: string; finishedAt?: string };
}
export interface ContainerStatus {
  name: string;
  image: string;
  imageID?: string;
  containerID?: string;
  ready: boolean;
  started?: boolean;
  restartCount: number;
  state?: ContainerState;
  lastState?: ContainerState;
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
}

const BAD = /CrashLoop|Err|Error|Failed|BackOff|OOMKilled|Invalid|Unschedulable|Evicted|NodeLost|DeadlineExceeded|CannotRun|Trap/;

const statuses = (pod: KubeObject, field: string): ContainerStatus[] => pod.status?.[field] ?? [];

export const allStatuses = (pod: KubeObject): ContainerStatus[] => [
  ...statuses(pod, 'initContainerStatuses'),
  ...statuses(pod, 'containerStatuses'),
  ...statuses(pod, 'ephemeralContainerStatuses'),
];

export function readyCount(pod: KubeObject): [number, number] {
  const containers = (pod.spec?.containers ?? []) as unknown[];
  return [statuses(pod, 'containerStatuses').filter((status) => status.ready).length, containers.length];
}

export const restarts = (pod: KubeObject): number => statuses(pod, 'containerStatuses').reduce((sum, status) => sum + (status.restartCount ?? 0), 0);

function initReason(pod: KubeObject): string | undefined {
  const inits = statuses(pod, 'initContainerStatuses');
  const index = inits.findIndex((status) => status.state?.terminated?.exitCode !== 0 && !(status.started && status.state?.running));
  const status = inits[index];
  if (!status) return undefined;
  const { terminated, waiting } = status.state ?? {};
  if (terminated) return `Init:${terminated.reason || `ExitCode:${terminated.exitCode}`}`;
  if (waiting?.reason && waiting.reason !== 'PodInitializing') return `Init:${waiting.reason}`;
  return `Init:${index}/${inits.length}`;
}

function containerReason(pod: KubeObject): string | undefined {
  for (const status of statuses(pod, 'containerStatuses').toReversed()) {
    const { waiting, terminated } = status.state ?? {};
    if (waiting?.reason) return waiting.reason;
    if (terminated) return terminated.reason || (terminated.signal ? `Signal:${terminated.signal}` : `ExitCode:${terminated.exitCode}`);
  }
  return undefined;
}

function messageOf(pod: KubeObject): string | undefined {
  // What ended the whole pod, such as an eviction, says more than how its containers ended.
  if (pod.status?.phase === 'Failed' && pod.status.message) return pod.status.message;
  for (const status of allStatuses(pod)) {
    const waiting = status.state?.waiting?.message;
    const ended = status.state?.terminated?.message ?? status.lastState?.terminated?.message;
    if (waiting || ended) return waiting || ended;
  }
  const conditions = (pod.status?.conditions ?? []) as { status: string; message?: string }[];
  return pod.status?.message ?? conditions.find((condition) => condition.status === 'False' && condition.message)?.message;
}

function word(pod: KubeObject): string {
  const reason = pod.status?.reason || pod.status?.phase || 'Unknown';
  if (pod.metadata.deletionTimestamp) return pod.status?.reason === 'NodeLost' ? 'Unknown' : 'Terminating';
  const scheduled = ((pod.status?.conditions ?? []) as { type: string; status: string; reason?: string }[]).find((condition) => condition.type === 'PodScheduled');
  if (scheduled?.status === 'False' && scheduled.reason === 'Unschedulable') return 'Unschedulable';
  const container = initReason(pod) ?? containerReason(pod);
  return container === 'Completed' && reason === 'Running' ? 'NotReady' : (container ?? reason);
}

export function podHealth(pod: KubeObject): Health {
  const text = word(pod);
  const [ready, total] = readyCount(pod);
  if (text === 'Terminating') return { level: 'busy', text };
  if (text === 'Succeeded' || text === 'Completed') return { level: 'idle', text };
  if (BAD.test(text) || pod.status?.phase === 'Failed') return { level: 'bad', text, reason: messageOf(pod) };
  if (text === 'Running') return ready < total ? { level: 'warn', text: 'Not ready', reason: messageOf(pod) } : { level: 'ok', text };
  return { level: 'busy', text, reason: messageOf(pod) };
}
