// A pod's volumes: where each comes from, which container sees it where, and the files in those of running containers.
import { objectLink } from '../links';
import { allStatuses } from '../kinds/pod_status';
import { Empty, Link, Section, Tag } from '../ui/basics';
import { Files } from './files';
import type { PanelProps } from './table';

interface Mount {
  name: string;
  mountPath: string;
  readOnly?: boolean;
  subPath?: string;
}
type Volume = { name: string } & Record<string, Record<string, unknown>>;

const LINKS: Record<string, [resource: string, field: string]> = { configMap: ['configmaps', 'name'], secret: ['secrets', 'secretName'], persistentVolumeClaim: ['persistentvolumeclaims', 'claimName'] };

function Origin({ volume, namespace }: { volume: Volume; namespace: string }) {
  const type = Object.keys(volume).find((key) => key !== 'name') ?? 'emptyDir';
  const [resource, field] = LINKS[type] ?? [];
  const name = field && String(volume[type]?.[field] ?? '');
  return <><Tag>{type}</Tag> {resource && name ? <Link to={objectLink('', resource, namespace, name)}>{name}</Link> : null}</>;
}

export default function VolumesPanel({ object }: PanelProps) {
  const volumes = (object.spec?.volumes ?? []) as Volume[];
  const containers = [...(object.spec?.initContainers ?? []), ...(object.spec?.containers ?? []), ...(object.spec?.ephemeralContainers ?? [])] as { name: string; volumeMounts?: Mount[] }[];
  if (!volumes.length) return <Empty title="This pod has no volumes." />;
  const running = new Set(allStatuses(object).filter((status) => status.state?.running).map((status) => status.name));
  const places = containers.filter(({ name }) => running.has(name)).flatMap(({ name, volumeMounts = [] }) => volumeMounts.map(({ mountPath, readOnly }) => ({ container: name, path: mountPath, readOnly })));
  return (
    <>
    <Section title="Volumes">
      <div className="scroll-x" tabIndex={0}><table className="plain"><thead><tr><th>Volume</th><th>From</th><th>Mounted</th></tr></thead>
        <tbody>{volumes.map((volume) => <tr key={volume.name}><td>{volume.name}</td><td><Origin volume={volume} namespace={object.metadata.namespace!} /></td><td><ul>{containers.flatMap((container) => (container.volumeMounts ?? []).filter((mount) => mount.name === volume.name).map((mount) => <li key={`${container.name}${mount.mountPath}`}>{container.name}: <code>{mount.mountPath}</code> {mount.subPath && <>from <code>{mount.subPath}</code> </>}{mount.readOnly && <Tag>read only</Tag>}</li>))}</ul></td></tr>)}</tbody></table></div>
    </Section>
    {running.size > 0 && <Files namespace={object.metadata.namespace!} pod={object.metadata.name} places={places} />}
    </>
  );
}
