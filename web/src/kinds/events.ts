// Events of both APIs (core and events.k8s.io) read alike.
import type { KubeObject } from '../api/objects';

export interface Involved {
  apiVersion?: string;
  kind: string;
  name: string;
  namespace?: string;
  uid?: string;
}

export const involved = (event: KubeObject): Involved => (event.involvedObject ?? event.regarding ?? { kind: '', name: '' }) as Involved;

export const eventTime = (event: KubeObject): string | undefined =>
  event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp ?? event.metadata.creationTimestamp;

export const eventCount = (event: KubeObject): number => Number(event.series?.count ?? event.count ?? 1);

export const newestFirst = (left: KubeObject, right: KubeObject): number => (eventTime(right) ?? '').localeCompare(eventTime(left) ?? '');
