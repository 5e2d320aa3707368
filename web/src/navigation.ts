// The side navigation and its keys, one row each. `resource` rows are lists; the others are pages of their own.

export interface NavEntry {
  title: string;
  /** `group/resource` of a list. */
  resource?: string;
  to?: string;
  /** The key after `g`. */
  key?: string;
}

export const NAVIGATION: { title: string; entries: NavEntry[] }[] = [
  { title: 'Cluster', entries: [
    { title: 'Overview', to: '/', key: 'o' },
    { title: 'Nodes', resource: '/nodes', key: 'n' },
    { title: 'Namespaces', resource: '/namespaces', key: 's' },
    { title: 'Events', to: '/events', key: 'e' },
    { title: 'Map', to: '/map', key: 'm' },
  ] },
  { title: 'Workloads', entries: [
    { title: 'All workloads', to: '/workloads', key: 'w' },
    { title: 'Pods', resource: '/pods', key: 'p' },
    { title: 'Deployments', resource: 'apps/deployments', key: 'd' },
    { title: 'StatefulSets', resource: 'apps/statefulsets' },
    { title: 'DaemonSets', resource: 'apps/daemonsets' },
    { title: 'Jobs', resource: 'batch/jobs', key: 'j' },
    { title: 'CronJobs', resource: 'batch/cronjobs' },
    { title: 'Autoscalers', resource: 'autoscaling/horizontalpodautoscalers' },
  ] },
  { title: 'Network', entries: [
    { title: 'Services', resource: '/services', key: 'v' },
    { title: 'Ingresses', resource: 'networking.k8s.io/ingresses' },
    { title: 'NetworkPolicies', resource: 'networking.k8s.io/networkpolicies' },
    { title: 'EndpointSlices', resource: 'discovery.k8s.io/endpointslices' },
  ] },
  { title: 'Configuration and storage', entries: [
    { title: 'ConfigMaps', resource: '/configmaps', key: 'c' },
    { title: 'Secrets', resource: '/secrets' },
    { title: 'Volume claims', resource: '/persistentvolumeclaims' },
    { title: 'Volumes', resource: '/persistentvolumes' },
    { title: 'Storage classes', resource: 'storage.k8s.io/storageclasses' },
  ] },
  { title: 'Rights and API', entries: [
    { title: 'Access', to: '/access', key: 'a' },
    { title: 'ServiceAccounts', resource: '/serviceaccounts' },
    { title: 'All kinds', to: '/kinds', key: 'k' },
  ] },
];

export const entryLink = (entry: NavEntry): string => {
  if (!entry.resource) return entry.to ?? '/';
  const [group, resource] = entry.resource.split('/');
  return `/list/${group || 'core'}/${resource}`;
};

export const GO_KEYS: Record<string, NavEntry> = Object.fromEntries(
  NAVIGATION.flatMap((group) => group.entries).filter((entry) => entry.key).map((entry) => [entry.key!, entry]),
);
