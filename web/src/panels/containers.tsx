// A pod's containers: state now and before, probes, resources, ports, image.
import type { KubeObject } from '../api/objects';
import { shortImage } from '../kinds/columns';
import type { ContainerState, ContainerStatus, Health } from '../kinds/pod_status';
import { parseQuantity } from '../lib/quantity';
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
  restartPolicy?: string;
  restartPolicyRules?: { action: string; exitCodes?: { operator: string; values?: number[] } }[];
  lifecycle?: { postStart?: Hook; preStop?: Hook };
}
interface Hook {
  exec?: { command?: string[] };
  httpGet?: { path?: string; port: number | string; scheme?: string };
  sleep?: { seconds: number };
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

function hookText(hook: Hook | undefined): string | undefined {
  if (hook?.exec) return `exec ${hook.exec.command?.join(' ')}`;
  if (hook?.httpGet) return `GET ${hook.httpGet.scheme?.toLowerCase() ?? 'http'}://:${hook.httpGet.port}${hook.httpGet.path ?? '/'}`;
  return hook?.sleep && `sleeps ${hook.sleep.seconds} s`;
}

const rulesText = ({ restartPolicyRules }: Container) => restartPolicyRules?.map(({ action, exitCodes }) => `${action} on exit codes ${exitCodes?.operator === 'NotIn' ? 'other than ' : ''}${exitCodes?.values?.join(', ')}`).join('; ');

/** What the node has given the container, where that is not what is asked for: a resize that is not done yet. */
function inEffect(container: Container, status: ContainerStatus | undefined): string | undefined {
  const { requests, limits } = status?.resources ?? {};
  const differs = (asked: Record<string, string> = {}, given: Record<string, string> = {}) => Object.keys(given).some((name) => parseQuantity(given[name]) !== parseQuantity(asked[name]));
  if (!differs(container.resources?.requests, requests) && !differs(container.resources?.limits, limits)) return undefined;
  return `requests ${amounts(requests) || 'none'}; limits ${amounts(limits) || 'none'}`;
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
    ['In effect now', inEffect(container, status)],
    ['Restart policy', container.restartPolicy],
    ['Restart rules', rulesText(container)],
    ['After start', hookText(container.lifecycle?.postStart)],
    ['Before stop', hookText(container.lifecycle?.preStop)],
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
