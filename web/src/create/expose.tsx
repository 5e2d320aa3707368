// The form that makes a Service for a workload that is there.
import { useState } from 'react';
import { useList } from '../api/use_list';
import { exposeYaml, nameProblem } from '../lib/templates';
import { Button, Empty, Section } from '../ui/basics';
import type { FormProps } from '../pages/create';
import { Field } from './fields';

const TYPES = ['ClusterIP', 'NodePort', 'LoadBalancer'];

export function CreateExpose({ namespace, onYaml }: FormProps) {
  const list = useList(`/apis/apps/v1/namespaces/${namespace}/deployments`);
  const [picked, setPicked] = useState('');
  const [port, setPort] = useState(80);
  const [target, setTarget] = useState('');
  const [type, setType] = useState('ClusterIP');
  const [name, setName] = useState('');
  const workload = list.items.find((item) => item.metadata.name === picked) ?? list.items[0];
  if (!workload) return <Empty title={list.phase === 'loading' ? 'Reading Deployments…' : `There is no Deployment in namespace ${namespace}.`} />;
  const declared = ((workload.spec.template.spec.containers ?? []) as { ports?: { containerPort: number; name?: string }[] }[]).flatMap((container) => container.ports ?? []);
  const selector = (workload.spec.selector.matchLabels ?? {}) as Record<string, string>;
  const chosen = target || declared[0]?.name || String(declared[0]?.containerPort ?? '');
  const serviceName = name || workload.metadata.name;
  const problem = nameProblem(serviceName) ?? (chosen ? undefined : 'Enter the port of the pods.');
  const targetPort = /^\d+$/.test(chosen) ? Number(chosen) : chosen;
  return (
    <Section title="Expose">
      <div className="stack">
        <div className="cards">
          <Field label="Deployment"><select value={workload.metadata.name} onChange={(event) => setPicked(event.target.value)}>{list.items.map((item) => <option key={item.metadata.name}>{item.metadata.name}</option>)}</select></Field>
          <Field label="Name of the Service" problem={nameProblem(serviceName)}><input value={name} placeholder={workload.metadata.name} onChange={(event) => setName(event.target.value)} /></Field>
          <Field label="Port of the Service"><input type="number" min={1} max={65535} value={port} onChange={(event) => setPort(Number(event.target.value))} /></Field>
          <Field label="Port of the pods" hint="Number or name"><input value={target} placeholder={chosen} onChange={(event) => setTarget(event.target.value)} /></Field>
          <Field label="Type"><select value={type} onChange={(event) => setType(event.target.value)}>{TYPES.map((entry) => <option key={entry}>{entry}</option>)}</select></Field>
        </div>
        <div><Button tone="primary" reason={problem} onClick={() => onYaml(exposeYaml({ name: serviceName, namespace, selector, port, targetPort, type }))}>Review YAML</Button></div>
      </div>
    </Section>
  );
}
