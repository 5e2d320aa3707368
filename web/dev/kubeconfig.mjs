// Reads what the development server needs from a kubeconfig: the server's address and the client certificate.
import fs from 'node:fs';
import { parse } from 'yaml';

const inline = (entry, name) => {
  const data = entry[`${name}-data`];
  if (data) return Buffer.from(data, 'base64');
  return entry[name] ? fs.readFileSync(entry[name]) : undefined;
};

/** The current context of a kubeconfig as options for `https.request` and `tls.connect`. */
export function readKubeconfig(file) {
  const config = parse(fs.readFileSync(file, 'utf8'));
  const context = config.contexts.find((entry) => entry.name === config['current-context']).context;
  const cluster = config.clusters.find((entry) => entry.name === context.cluster).cluster;
  const user = config.users.find((entry) => entry.name === context.user).user;
  const url = new URL(cluster.server);
  return {
    host: url.hostname,
    port: Number(url.port || 443),
    ca: inline(cluster, 'certificate-authority'),
    admin: { cert: inline(user, 'client-certificate'), key: inline(user, 'client-key'), token: user.token },
  };
}
