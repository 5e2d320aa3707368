// The keys of a ConfigMap or Secret. Secret values stay hidden until asked for, one by one.
import { useState } from 'react';
import type { Resource } from '../api/discovery';
import type { KubeObject } from '../api/objects';
import { Button, Empty, Section } from '../ui/basics';

function decode(base64: string): string {
  try {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return `(binary, ${Math.floor((base64.length * 3) / 4)} bytes)`;
  }
}

function Value({ name, text, hidden }: { name: string; text(): string; hidden: boolean }) {
  const [shown, setShown] = useState(!hidden);
  const value = shown ? text() : '';
  return (
    <li className="stack">
      <div className="inline"><code className="grow wrap">{name}</code>{hidden && <Button aria-pressed={shown} onClick={() => setShown(!shown)}>{shown ? 'Hide' : 'Show'}</Button>}{shown && <Button onClick={() => void navigator.clipboard?.writeText(value)}>Copy</Button>}</div>
      {shown ? <div className="code-block" tabIndex={0}>{value.slice(0, 20_000)}{value.length > 20_000 && '…'}</div> : <span className="faint">hidden</span>}
    </li>
  );
}

export function DataPanel({ resource, object }: { resource: Resource; object: KubeObject }) {
  const secret = resource.resource === 'secrets';
  const data = Object.entries((object.data ?? {}) as Record<string, string>);
  const binary = Object.entries((object.binaryData ?? {}) as Record<string, string>);
  if (!data.length && !binary.length) return <Section title="Data"><Empty title="It holds no keys." /></Section>;
  return (
    <Section title="Data">
      <ul className="stack">
        {data.map(([name, value]) => <Value key={name} name={name} hidden={secret} text={() => (secret ? decode(value) : value)} />)}
        {binary.map(([name, value]) => <Value key={name} name={name} hidden={false} text={() => decode(value)} />)}
      </ul>
    </Section>
  );
}
