// A terminal in a container: run a program (exec), attach to the one that runs, or add a debug container.
import { useEffect, useRef, useState } from 'react';
import { STRATEGIC_PATCH, write } from '../api/client';
import { useAccess } from '../api/rights';
import { Button, ErrorNote, Note } from '../ui/basics';
import { toast } from '../ui/toasts';
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

function Debug({ object }: PanelProps) {
  const { name, namespace } = object.metadata;
  const [image, setImage] = useState('');
  const [error, setError] = useState<Error>();
  const access = useAccess({ verb: 'patch', group: '', resource: 'pods', subresource: 'ephemeralcontainers', namespace, name });
  const add = async () => {
    setError(undefined);
    const container = { name: `debug-${Date.now().toString(36)}`, image, stdin: true, tty: true };
    try {
      await write('PATCH', `/api/v1/namespaces/${namespace}/pods/${name}/ephemeralcontainers`, { spec: { ephemeralContainers: [container] } }, STRATEGIC_PATCH);
      toast(`Container ${container.name} is added; attach to it when it runs.`);
    } catch (problem) {
      setError(problem as Error);
    }
  };
  return <details><summary>Add a debug container</summary><div className="inline"><input className="grow" aria-label="Image of the debug container" placeholder="registry.windlass.local/default/tool@sha256:…" value={image} onChange={(event) => setImage(event.target.value)} /><Button reason={access.allowed ? (image ? undefined : 'Enter an image.') : access.reason || 'Asking whether you may'} onClick={() => void add()}>Add</Button></div>{error && <ErrorNote error={error} />}</details>;
}

export default function TerminalPanel(props: PanelProps) {
  const { object } = props;
  const { name, namespace } = object.metadata;
  const containers = [...(object.spec?.containers ?? []), ...(object.spec?.ephemeralContainers ?? [])] as { name: string; tty?: boolean }[];
  const [container, setContainer] = useState(containers[0]?.name ?? '');
  const [mode, setMode] = useState<'exec' | 'attach'>('exec');
  const [command, setCommand] = useState('/bin/sh');
  const [target, setTarget] = useState<TerminalTarget>();
  const access = useAccess({ verb: 'create', group: '', resource: 'pods', subresource: mode, namespace, name });
  const tty = mode === 'exec' || !!containers.find((entry) => entry.name === container)?.tty;
  const open = () => setTarget({ namespace: namespace!, pod: name, container, mode, command: command.split(/\s+/).filter(Boolean), tty });
  return (
    <div className="stack">
      <div className="inline">
        <select aria-label="Container" value={container} onChange={(event) => setContainer(event.target.value)}>{containers.map((entry) => <option key={entry.name}>{entry.name}</option>)}</select>
        <select aria-label="Mode" value={mode} onChange={(event) => setMode(event.target.value as 'exec')}><option value="exec">Run a program (exec)</option><option value="attach">Attach to the running one</option></select>
        {mode === 'exec' && <input aria-label="Program and arguments" value={command} onChange={(event) => setCommand(event.target.value)} />}
        <Button tone="primary" reason={access.allowed ? undefined : access.reason || 'Asking whether you may'} onClick={open}>Open</Button>
        {target && <Button onClick={() => setTarget(undefined)}>Close</Button>}
      </div>
      {target ? <Screen key={JSON.stringify(target)} target={target} /> : <p className="faint">A WebAssembly component has no shell of its own; what may be run is what the node offers for it.</p>}
      <Debug {...props} />
    </div>
  );
}
