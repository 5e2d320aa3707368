// Pushes a .wasm file from this browser to the cluster's registry, then goes on to the form that runs it.
import { useState, type DragEvent } from 'react';
import { pushWasm, wasmKind } from '../api/registry';
import { useAccess } from '../api/rights';
import { formatBytes } from '../lib/quantity';
import { nameProblem } from '../lib/templates';
import { navigate } from '../router';
import { Button, ErrorNote, Facts, Note, Section } from '../ui/basics';
import type { FormProps } from '../pages/create';
import { Field } from './fields';

interface Picked {
  file: File;
  bytes: Uint8Array<ArrayBuffer>;
}

const nameFrom = (file: string) => file.replace(/\.wasm$/i, '').toLowerCase().replace(/[^a-z0-9-]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 63);
const KINDS = { component: 'component', module: 'core module (WASI 0.1)' };

export function CreateWasm({ namespace }: FormProps) {
  const [picked, setPicked] = useState<Picked>();
  const [name, setName] = useState('');
  const [stage, setStage] = useState<string>();
  const [error, setError] = useState<Error>();
  const [over, setOver] = useState(false);
  const access = useAccess({ verb: 'create', group: 'registry.windlass.dev', resource: 'images', namespace });
  const take = async (file: File | undefined) => {
    if (!file) return;
    setError(undefined);
    setPicked({ file, bytes: new Uint8Array(await file.arrayBuffer()) });
    setName(nameFrom(file.name));
  };
  const kind = picked && wasmKind(picked.bytes);
  const reason = !access.allowed ? access.reason || 'Asking whether you may' : !picked ? 'Choose a file.' : !kind ? 'It is not WebAssembly.' : nameProblem(name) ?? (stage ? 'Under way' : undefined);
  const push = async () => {
    setError(undefined);
    try {
      const image = await pushWasm(namespace, name, picked!.bytes, setStage);
      navigate(`/create/app?image=${encodeURIComponent(image)}&name=${encodeURIComponent(name)}`);
    } catch (problem) {
      setError(problem as Error);
    } finally {
      setStage(undefined);
    }
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    void take(event.dataTransfer.files[0]);
  };
  return (
    <Section title="Push a .wasm file">
      <div className="stack">
        <div className={over ? 'drop drop-over' : 'drop'} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={drop}>
          <p>Drop a WebAssembly component here, or</p>
          <label className="button">Choose a file<input className="sr-only" type="file" accept=".wasm,application/wasm" aria-label="WebAssembly file" onChange={(event) => void take(event.target.files?.[0])} /></label>
        </div>
        {picked && <Facts facts={[['File', picked.file.name], ['Size', formatBytes(picked.bytes.length)], ['Is a', kind ? KINDS[kind] : 'file of another kind']]} />}
        {picked && !kind && <Note tone="bad">This file is not a WebAssembly component or module.</Note>}
        {picked && <Field label={`Name in the registry, under ${namespace}/`} problem={nameProblem(name)}><input value={name} onChange={(event) => setName(event.target.value)} /></Field>}
        {stage && <p role="status">{stage}…</p>}
        {error && <ErrorNote what="Not pushed." error={error} />}
        <div><Button tone="primary" reason={reason} onClick={() => void push()}>Push and run</Button></div>
      </div>
    </Section>
  );
}
