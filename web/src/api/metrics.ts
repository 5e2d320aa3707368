// Use of CPU and memory, and traffic: these have no watch, so they are the one thing that is asked for again and again,
// and only while something on the page shows it. Each hook keeps the short history that its chart draws.
import { useEffect, useRef, useState } from 'react';
import { getJson } from './client';
import type { KubeObject } from './objects';
import type { Flow } from '../lib/map_layout';
import { parseQuantity } from '../lib/quantity';

export interface Usage {
  cpu: number;
  memory: number;
}
export interface Sample extends Usage {
  /** Seconds, as charts count. */
  time: number;
}

/** Nodes measure no more often. */
const EVERY = 15_000;
const FLOWS_EVERY = 5_000;
const KEPT = 240;
const histories = new Map<string, Sample[]>();

function remember(key: string, usage: Usage): Sample[] {
  const history = [...(histories.get(key) ?? []), { time: Date.now() / 1000, ...usage }].slice(-KEPT);
  histories.set(key, history);
  return history;
}

/** Calls at once and then every so often while mounted and the page is in view. */
function usePolled<T>(path: string | undefined, read: (body: KubeObject & { items?: KubeObject[] }) => T, every = EVERY): { value?: T; error?: Error } {
  const [state, setState] = useState<{ path?: string; value?: T; error?: Error }>({});
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    const ask = () => {
      if (document.hidden) return;
      getJson<KubeObject & { items?: KubeObject[] }>(path, { signal: abort.signal }).then(
        (body) => setState({ path, value: read(body) }),
        (error: Error) => !abort.signal.aborted && setState({ path, error }),
      );
    };
    ask();
    const timer = setInterval(ask, every);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
    // `read` belongs to the path.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [path, every]);
  return state.path === path ? state : {};
}

interface ContainerUsage {
  name: string;
  usage: { cpu: string; memory: string };
}

const usageOf = (containers: ContainerUsage[]): Usage => ({
  cpu: containers.reduce((sum, container) => sum + (parseQuantity(container.usage.cpu) || 0), 0),
  memory: containers.reduce((sum, container) => sum + (parseQuantity(container.usage.memory) || 0), 0),
});

/** A pod's use over time, by container and in all. */
export function usePodHistory(namespace: string, name: string) {
  const path = `/apis/metrics.k8s.io/v1beta1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`;
  return usePolled(path, (body) => {
    const containers = (body.containers ?? []) as ContainerUsage[];
    const each = Object.fromEntries(containers.map((container) => [container.name, usageOf([container])]));
    return { history: remember(path, usageOf(containers)), containers: each };
  });
}

/** The use of nodes by name, and of the cluster over time. */
export function useNodeUsage(enabled = true) {
  return usePolled(enabled ? '/apis/metrics.k8s.io/v1beta1/nodes' : undefined, (body) => {
    const nodes = new Map((body.items ?? []).map((item) => [item.metadata.name, { cpu: parseQuantity(item.usage.cpu), memory: parseQuantity(item.usage.memory) }]));
    for (const [name, usage] of nodes) remember(`node/${name}`, usage);
    const all = [...nodes.values()];
    const total = { cpu: all.reduce((sum, usage) => sum + usage.cpu, 0), memory: all.reduce((sum, usage) => sum + usage.memory, 0) };
    return { nodes, history: remember('cluster', total), historyOf: (name: string) => histories.get(`node/${name}`) ?? [] };
  });
}

/** The use of all pods of a namespace or node list, newest value only. */
export function usePodUsage(namespace?: string) {
  const scope = namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return usePolled(`/apis/metrics.k8s.io/v1beta1${scope}/pods`, (body) => new Map((body.items ?? []).map((item) => [`${item.metadata.namespace}/${item.metadata.name}`, usageOf((item.containers ?? []) as ContainerUsage[])])));
}

const keyOf = (pod: KubeObject, { direction, peer, protocol, port }: Flow) => [pod.metadata.namespace, pod.metadata.name, direction, peer.kind, peer.namespace, peer.name, peer.address, protocol, port].join(' ');

/** Flows with how many connections there are of each now: what came since the last look, by the time that passed. */
export function withRates(pods: KubeObject[], before: Map<string, Flow> | undefined, seconds: number): { pods: KubeObject[]; seen: Map<string, Flow> } {
  const seen = new Map<string, Flow>();
  const rate = (now = 0, then = 0) => (before && seconds > 0 ? Math.max(0, now - then) / seconds : 0);
  const rated = pods.map((pod) => ({ ...pod, flows: ((pod.flows ?? []) as Flow[]).map((flow) => {
    const key = keyOf(pod, flow);
    const old = before?.get(key);
    seen.set(key, flow);
    return { ...flow, rate: rate(flow.connections, old?.connections), deniedRate: rate(flow.denied, old?.denied) };
  }) }));
  return { pods: rated, seen };
}

/** The flows that nodes have counted, by pod; computed like metrics. */
export function useFlows(served: boolean, namespace: string) {
  const scope = namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  const path = served ? `/apis/node.windlass.dev/v1${scope}/podflows` : undefined;
  const last = useRef<{ path?: string; at: number; seen?: Map<string, Flow> }>({ at: 0 });
  return usePolled(path, (body) => {
    const now = Date.now();
    const before = last.current.path === path ? last.current.seen : undefined;
    const { pods, seen } = withRates(body.items ?? [], before, (now - last.current.at) / 1000);
    last.current = { path, at: now, seen };
    return pods;
  }, FLOWS_EVERY);
}
