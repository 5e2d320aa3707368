// A terminal in a container: run a program (exec), attach to the one that runs, or add a debug container.
import { useEffect, useId, useRef, useState } from 'react';
import { STRATEGIC_PATCH, write } from '../api/client';
import { useAccess } from '../api/rights';
import type { ContainerStatus } from '../kinds/pod_status';
import { proposals, wordsOf } from '../lib/commands';
import { Button, ErrorNote, Note } from '../ui/basics';
import type { TerminalTarget } from '../api/exec';
import type { PanelProps } from './table';

function Screen({ target }: { target: TerminalTarget }) {
  const box = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<{ text: string; failed: boolean }>({ text: 'Connecting…', failed: false });
  const key = JSON.stringify(target);
  useEffect(() => {
    let close: (() => void) | undefined;
    let alive = true;
    void import('./terminal_view').then(({ showTerminal }) => {
      if (alive && box.current) close = showTerminal(box.current, JSON.parse(key) as TerminalTarget, (text, failed) => setState({ text, failed }));
    });
    return () => {
      alive = false;
      close?.();
    };
  }, [key]);
  return <><Note tone={state.failed ? 'bad' : 'info'}>{state.text}</Note><div className="terminal" ref={box} /></>;
}

function Debug({ object, onAdded }: PanelProps & { onAdded(container: string): void }) {
  const { name, namespace } = object.metadata;
  const [image, setImage] = useState('');
  const [command, setCommand] = useState('');
  const [error, setError] = useState<Error>();
  const access = useAccess({ verb: 'patch', group: '', resource: 'pods', subresource: 'ephemeralcontainers', namespace, name });
  const reason = access.allowed ? (image.trim() ? undefined : 'Enter an image.') : access.reason || 'Asking whether you may';
  const add = async () => {
    setError(undefined);
    const words = wordsOf(command);
    const container = { name: `debug-${Date.now().toString(36)}`, image: image.trim(), stdin: true, tty: true, ...(words.length ? { command: words } : {}) };
    try {
      await write('PATCH', `/api/v1/namespaces/${namespace}/pods/${name}/ephemeralcontainers`, { spec: { ephemeralContainers: [container] } }, STRATEGIC_PATCH);
      onAdded(container.name);
    } catch (problem) {
      setError(problem as Error);
    }
  };
  return (
    <details>
      <summary>Add a debug container</summary>
      <div className="inline">
        <input className="grow" aria-label="Image of the debug container" placeholder="registry.windlass.local/default/tool@sha256:…" value={image} onChange={(event) => setImage(event.target.value)} />
        <input aria-label="Command of the debug container" placeholder="its own command" value={command} onChange={(event) => setCommand(event.target.value)} />
        <Button reason={reason} onClick={() => void add()}>Add and attach</Button>
      </div>
      <p className="faint">It can’t be taken out of the pod again. It is attached to when it runs.</p>
      {error && <ErrorNote error={error} />}
    </details>
  );
}

const FIELDS = [['initContainers', 'initContainerStatuses'], ['containers', 'containerStatuses'], ['ephemeralContainers', 'ephemeralContainerStatuses']] as const;
type Container = { name: string; image?: string; tty?: boolean; stdin?: boolean; volumeMounts?: { mountPath: string }[] };

export default function TerminalPanel(props: PanelProps) {
  const { object } = props;
  const { name, namespace } = object.metadata;
  const containers = FIELDS.flatMap(([field]) => (object.spec?.[field] ?? []) as Container[]);
  const statuses = FIELDS.flatMap(([, field]) => (object.status?.[field] ?? []) as ContainerStatus[]);
  const first = (object.spec?.containers as Container[] | undefined)?.[0]?.name ?? '';
  const [container, setContainer] = useState(first);
  const [mode, setMode] = useState<'exec' | 'attach'>('exec');
  const [command, setCommand] = useState(first);
  const [target, setTarget] = useState<{ session: number; at: TerminalTarget; starting?: boolean }>();
  const list = useId();
  const access = useAccess({ verb: 'create', group: '', resource: 'pods', subresource: mode, namespace, name });
  const chosen = containers.find((entry) => entry.name === container);
  const words = wordsOf(command);
  const open = (how: 'exec' | 'attach', entry: Container | undefined, line: string[]) => {
    if (!entry) return;
    const at = { namespace: namespace!, pod: name, container: entry.name, mode: how, command: line, tty: how === 'exec' || !!entry.tty, stdin: how === 'exec' || !!entry.stdin };
    setTarget((old) => ({ session: (old?.session ?? 0) + 1, at }));
  };
  const choose = (next: string) => {
    setContainer(next);
    if (command === container) setCommand(next);
  };
  const attachTo = (added: string) => {
    setContainer(added);
    setMode('attach');
    const at = { namespace: namespace!, pod: name, container: added, mode: 'attach' as const, command: [], tty: true };
    setTarget((old) => ({ session: (old?.session ?? 0) + 1, at, starting: true }));
  };
  const state = target?.starting ? statuses.find((status) => status.name === target.at.container)?.state : undefined;
  const starting = target?.starting && !state?.running && !state?.terminated;
  const reason = !access.allowed ? access.reason || 'Asking whether you may' : mode === 'exec' && !words.length ? 'Enter a program.' : undefined;
  return (
    <div className="stack">
      <div className="inline">
        <select aria-label="Container" value={container} onChange={(event) => choose(event.target.value)}>{containers.map((entry) => <option key={entry.name}>{entry.name}</option>)}</select>
        <select aria-label="Mode" value={mode} onChange={(event) => setMode(event.target.value as 'exec')}><option value="exec">Run a program (exec)</option><option value="attach">Attach to the running one</option></select>
        {mode === 'exec' && <input className="grow" aria-label="Program and arguments" list={list} value={command} onChange={(event) => setCommand(event.target.value)} onKeyDown={(event) => event.key === 'Enter' && !reason && open(mode, chosen, words)} />}
        <datalist id={list}>{proposals(chosen).map((proposal) => <option key={proposal} value={proposal} />)}</datalist>
        <Button tone="primary" reason={reason} onClick={() => open(mode, chosen, words)}>Open</Button>
        {target && <Button onClick={() => setTarget(undefined)}>Close</Button>}
      </div>
      {starting && <Note>{state?.waiting?.message ?? `Container ${target.at.container} is starting${state?.waiting?.reason ? ` (${state.waiting.reason})` : ''}.`}</Note>}
      {target && !starting && <Screen key={target.session} target={target.at} />}
      {!target && <p className="faint">A component has no shell. What can be run: its own program, by the name of the container or image; a component in a volume, by its absolute path; <code>tar</code> and <code>test</code> of the node’s.</p>}
      <Debug {...props} onAdded={attachTo} />
    </div>
  );
}
