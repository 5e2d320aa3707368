// A pod's containers: state now and before, probes, resources, ports, image.
import type { KubeObject } from '../api/objects';
import { shortImage } from '../kinds/columns';
import type { ContainerState, ContainerStatus, Health } from '../kinds/pod_status';
import { Facts, HealthBadge, RelativeTime, Section, Tag, type Fact } from '../ui/basics';

interface Probe {
  httpGet?: { path?: string; port: number | string; scheme?: string };
  tcpSocket?: { port: number | string };
  grpc?: { port: number };
  exec?: { command?: string[] };
  periodSeconds?: number;
  failureThreshold?: number;
  initialDelaySeconds?: number;
  timeoutSeconds?: number;
}
interface Container {
  name: string;
  image: string;
  args?: string[];
  command?: string[];
  ports?: { name?: string; containerPort: number; protocol?: string }[];
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  startupProbe?: Probe;
  env?: unknown[];
}

function stateHealth(state: ContainerState | undefined, ready: boolean): Health {
  if (state?.running) return { level: ready ? 'ok' : 'warn', text: ready ? 'Running' : 'Running, not ready' };
  if (state?.terminated) {
    const { exitCode, reason, message } = state.terminated;
    return { level: exitCode === 0 ? 'idle' : 'bad', text: `${reason ?? 'Ended'} (exit ${exitCode})`, reason: message };
  }
  const waiting = state?.waiting?.reason ?? 'Waiting';
  return { level: /BackOff|Err/.test(waiting) ? 'bad' : 'busy', text: waiting, reason: state?.waiting?.message };
}

function StateText({ state }: { state: ContainerState | undefined }) {
  if (state?.running) return <>running for <RelativeTime time={state.running.startedAt} /></>;
  if (state?.waiting) return <>{state.waiting.reason}{state.waiting.message && <div className="pre faint">{state.waiting.message}</div>}</>;
  if (!state?.terminated) return null;
  const { reason, exitCode, signal, finishedAt, message } = state.terminated;
  return <>{reason ?? 'ended'}, exit code {exitCode}{signal ? `, signal ${signal}` : ''}, <RelativeTime time={finishedAt} suffix=" ago" />{message && <div className="code-block pre">{message}</div>}</>;
}

function probeText(probe: Probe | undefined): string | undefined {
  if (!probe) return undefined;
  const what = probe.httpGet ? `GET ${probe.httpGet.scheme?.toLowerCase() ?? 'http'}://:${probe.httpGet.port}${probe.httpGet.path ?? '/'}` : probe.tcpSocket ? `TCP ${probe.tcpSocket.port}` : probe.grpc ? `gRPC ${probe.grpc.port}` : `exec ${probe.exec?.command?.join(' ')}`;
  return `${what}, every ${probe.periodSeconds ?? 10} s, fails after ${probe.failureThreshold ?? 3}`;
}

const amounts = (values: Record<string, string> | undefined) => Object.entries(values ?? {}).map(([name, value]) => `${name} ${value}`).join(', ');

function ContainerCard({ container, status, role }: { container: Container; status?: ContainerStatus; role?: string }) {
  const last = status?.lastState;
  const facts: Fact[] = [
    ['State', <StateText key="state" state={status?.state} />],
    ['Before that', last && Object.keys(last).length ? <StateText key="last" state={last} /> : undefined],
    ['Restarts', status?.restartCount ?? 0],
    ['Image', <span key="image" title={container.image}>{shortImage(container.image)}</span>],
    ['Command', [...(container.command ?? []), ...(container.args ?? [])].join(' ')],
    ['Ports', container.ports?.map((port) => `${port.name ? `${port.name} ` : ''}${port.containerPort}/${port.protocol ?? 'TCP'}`).join(', ')],
    ['Requests', amounts(container.resources?.requests)],
    ['Limits', amounts(container.resources?.limits)],
    ['Startup probe', probeText(container.startupProbe)],
    ['Readiness probe', probeText(container.readinessProbe)],
    ['Liveness probe', probeText(container.livenessProbe)],
    ['Variables', container.env?.length],
  ];
  return <div className="card"><div className="inline"><h3>{container.name}</h3>{role && <Tag>{role}</Tag>}<HealthBadge health={stateHealth(status?.state, !!status?.ready)} /></div><Facts facts={facts} /></div>;
}

export function PodContainers({ pod }: { pod: KubeObject }) {
  const groups: [field: string, statuses: string, role?: string][] = [['initContainers', 'initContainerStatuses', 'init'], ['containers', 'containerStatuses'], ['ephemeralContainers', 'ephemeralContainerStatuses', 'ephemeral']];
  return (
    <Section title="Containers">
      <div className="stack">
        {groups.flatMap(([field, statuses, role]) => ((pod.spec?.[field] ?? []) as Container[]).map((container) => <ContainerCard key={container.name} container={container} role={role} status={((pod.status?.[statuses] ?? []) as ContainerStatus[]).find((status) => status.name === container.name)} />))}
      </div>
    </Section>
  );
}
