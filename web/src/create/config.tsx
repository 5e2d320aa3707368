// The form for a ConfigMap or Secret.
import { useState } from 'react';
import { configYaml, nameProblem } from '../lib/templates';
import { Button, Section } from '../ui/basics';
import type { FormProps } from '../pages/create';
import { Field, filled, Pairs, type Pair } from './fields';

export function CreateConfig({ namespace, onYaml }: FormProps) {
  const [kind, setKind] = useState<'ConfigMap' | 'Secret'>('ConfigMap');
  const [name, setName] = useState('');
  const [entries, setEntries] = useState<Pair[]>([['', '']]);
  const problem = nameProblem(name) ?? (filled(entries).length ? undefined : 'Add an entry.');
  return (
    <Section title="Configuration">
      <div className="stack">
        <div className="cards">
          <Field label="Kind"><select value={kind} onChange={(event) => setKind(event.target.value as 'Secret')}><option>ConfigMap</option><option>Secret</option></select></Field>
          <Field label="Name" problem={name ? nameProblem(name) : undefined}><input value={name} onChange={(event) => setName(event.target.value)} /></Field>
        </div>
        <Pairs title="Entries" pairs={entries} onChange={setEntries} long />
        <div><Button tone="primary" reason={problem} onClick={() => onYaml(configYaml({ kind, name, namespace, entries: filled(entries) }))}>Review YAML</Button></div>
      </div>
    </Section>
  );
}
