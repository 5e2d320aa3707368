// How to reach a pod or Service: its addresses within the cluster, open ports of nodes, and the command to forward a port.
import { useList } from '../api/use_list';
import { Button, Empty, Facts, Link, Section } from '../ui/basics';
import { mapSelects } from '../lib/selector';
import { linkOf } from '../links';
import type { PanelProps } from './table';

interface Port {
  name?: string;
  port?: number;
  containerPort?: number;
  nodePort?: number;
  protocol?: string;
}

function Command({ text }: { text: string }) {
  return <div className="inline"><code className="code-block grow" tabIndex={0}>{text}</code><Button onClick={() => void navigator.clipboard?.writeText(text)}>Copy</Button></div>;
}

/** A name that a shell reads as one plain word; Kubernetes names need no quotes, but they come from the cluster. */
const quote = (text: string) => (/^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

export default function ConnectPanel({ resource, object }: PanelProps) {
  const { name, namespace } = object.metadata;
  const isService = resource.resource === 'services';
  const services = useList(isService ? undefined : `/api/v1/namespaces/${namespace}/services`);
  const ports: Port[] = isService ? (object.spec?.ports ?? []) : ((object.spec?.containers ?? []) as { ports?: Port[] }[]).flatMap((container) => container.ports ?? []);
  const number = (port: Port) => port.port ?? port.containerPort!;
  const local = (port: number) => (port < 1024 ? 8000 + port : port);
  const selecting = services.items.filter((service) => mapSelects(service.spec?.selector, object.metadata.labels));
  return (
    <div className="stack">
      <Section title="Within the cluster">
        <Facts facts={[
          ['Address', isService ? object.spec?.clusterIP : object.status?.podIP],
          ['DNS name', isService ? `${name}.${namespace}.svc.cluster.local` : undefined],
          ['Ports', ports.map((port) => `${port.name ? `${port.name} ` : ''}${number(port)}/${port.protocol ?? 'TCP'}`).join(', ') || 'none declared'],
          ['Ports of nodes', ports.filter((port) => port.nodePort).map((port) => `${port.nodePort} for ${number(port)}`).join(', ')],
          !isService && ['Services', selecting.length ? <ul key="services">{selecting.map((service) => <li key={service.metadata.name}><Link to={linkOf('', 'services', service)}>{service.metadata.name}</Link></li>)}</ul> : 'none selects this pod'],
        ]} />
      </Section>
      <Section title="From your machine">
        {ports.length ? <div className="stack"><p>A browser can’t open ports on your machine; kubectl can:</p>{ports.map((port) => <Command key={`${port.name}${number(port)}`} text={`kubectl port-forward --namespace ${quote(namespace!)} ${isService ? 'service' : 'pod'}/${quote(name)} ${local(number(port))}:${number(port)}`} />)}</div> : <Empty title="It declares no ports." />}
      </Section>
    </div>
  );
}
