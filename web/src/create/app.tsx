// The form for an app from an image: a Deployment, and a Service when it is exposed.
import { useState } from 'react';
import { appYaml, nameProblem, type AppForm } from '../lib/templates';
import { parseQuantity } from '../lib/quantity';
import { Button, Section } from '../ui/basics';
import type { FormProps } from '../pages/create';
import { Field, filled, Pairs } from './fields';

const EXPOSURES: [AppForm['expose'], string][] = [['no', 'Not at all'], ['ClusterIP', 'Within the cluster'], ['NodePort', 'On a port of each node'], ['LoadBalancer', 'By a load balancer']];

export function CreateApp({ namespace, onYaml, image, name }: FormProps & { image: string; name: string }) {
  const [form, setForm] = useState<AppForm>({ name, namespace, image, replicas: 1, port: 8080, expose: 'ClusterIP', memory: '32Mi', cpu: '10m', variables: [] });
  const set = (part: Partial<AppForm>) => setForm({ ...form, ...part });
  const quantity = (text: string) => (text && Number.isNaN(parseQuantity(text)) ? 'Not a quantity, as 64Mi or 100m are.' : undefined);
  const problem = nameProblem(form.name) ?? (form.image ? undefined : 'Enter an image.') ?? quantity(form.memory) ?? quantity(form.cpu);
  return (
    <Section title="App from an image">
      <div className="stack">
        <div className="cards">
          <Field label="Name" problem={form.name ? nameProblem(form.name) : undefined}><input value={form.name} onChange={(event) => set({ name: event.target.value })} /></Field>
          <Field label="Image" hint="registry.windlass.local/NAMESPACE/NAME@sha256:…"><input value={form.image} onChange={(event) => set({ image: event.target.value })} /></Field>
          <Field label="Replicas"><input type="number" min={0} value={form.replicas} onChange={(event) => set({ replicas: Number(event.target.value) })} /></Field>
          <Field label="Port it listens on" hint="Empty for none"><input type="number" min={1} max={65535} value={form.port ?? ''} onChange={(event) => set({ port: event.target.value ? Number(event.target.value) : undefined })} /></Field>
          <Field label="Reachable"><select value={form.expose} onChange={(event) => set({ expose: event.target.value as AppForm['expose'] })}>{EXPOSURES.map(([value, title]) => <option key={value} value={value}>{title}</option>)}</select></Field>
          <Field label="Memory" hint="Requested, and the limit" problem={quantity(form.memory)}><input value={form.memory} onChange={(event) => set({ memory: event.target.value })} /></Field>
          <Field label="CPU" hint="Requested" problem={quantity(form.cpu)}><input value={form.cpu} onChange={(event) => set({ cpu: event.target.value })} /></Field>
        </div>
        <Pairs title="Environment variables" pairs={form.variables} onChange={(variables) => set({ variables })} />
        <div><Button tone="primary" reason={problem} onClick={() => onYaml(appYaml({ ...form, namespace, variables: filled(form.variables) }))}>Review YAML</Button></div>
      </div>
    </Section>
  );
}
