// The tabs of object pages: one row each, with the kinds that have it. The first tab is the one an address opens.
import { lazy, type ComponentType } from 'react';
import type { Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { isWorkload } from '../kinds/workloads';

export interface PanelProps {
  resource: Resource;
  object: KubeObject;
  deleted: boolean;
}

interface TabRow {
  id: string;
  title: string;
  on(key: string, resource: Resource): boolean;
  panel: ComponentType<PanelProps>;
}

const pods = (key: string) => key === '/pods';
const workload = (_key: string, resource: Resource) => isWorkload(resource.group, resource.resource);
const revised = (key: string) => ['apps/deployments', 'apps/statefulsets', 'apps/daemonsets'].includes(key);

const TABS: TabRow[] = [
  { id: 'summary', title: 'Summary', on: () => true, panel: lazy(() => import('./summary')) },
  { id: 'logs', title: 'Logs', on: (key, resource) => pods(key) || workload(key, resource), panel: lazy(() => import('./logs')) },
  { id: 'terminal', title: 'Terminal', on: pods, panel: lazy(() => import('./terminal')) },
  { id: 'wasm', title: 'Component', on: pods, panel: lazy(() => import('./wasm')) },
  { id: 'use', title: 'Use', on: (key) => pods(key) || key === '/nodes', panel: lazy(() => import('./use')) },
  { id: 'connect', title: 'Connect', on: (key) => pods(key) || key === '/services', panel: lazy(() => import('./connect')) },
  { id: 'volumes', title: 'Volumes', on: pods, panel: lazy(() => import('./volumes')) },
  { id: 'revisions', title: 'Revisions', on: revised, panel: lazy(() => import('./revisions')) },
  { id: 'events', title: 'Events', on: (key) => key !== '/events', panel: lazy(() => import('./events')) },
  { id: 'yaml', title: 'YAML', on: () => true, panel: lazy(() => import('./yaml')) },
];

export const tabsOf = (resource: Resource): TabRow[] => TABS.filter((tab) => tab.on(`${resource.group}/${resource.resource}`, resource));
