// `windlass server` and `windlass up` as processes of a test's own, by the program that WINDLASS_BIN names, and requests to
// their API as the administrator whom their kubeconfig names.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parse } from 'yaml';

export const PROGRAM = process.env['WINDLASS_BIN'];

export interface Process {
  /** What it has printed so far. */
  output(): string;
  kill(): Promise<void>;
}

const endOf = (child: ChildProcess) => new Promise<void>((resolve) => child.once('exit', () => resolve()));

/** Starts it and waits until it has printed all that the expressions find; answers their first groups. */
async function start(options: string[], wanted: RegExp[]): Promise<Process & { found: string[] }> {
  const child = spawn(PROGRAM!, options, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = endOf(child);
  let text = '';
  const found = await new Promise<string[]>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        text += `${line}\n`;
        const matches = wanted.map((expression) => expression.exec(text)?.[1]);
        if (matches.every((match) => match !== undefined)) resolve(matches as string[]);
      });
    }
    void ended.then(() => reject(new Error(`windlass ended: ${text}`)));
  });
  const kill = () => {
    child.kill('SIGKILL');
    return ended;
  };
  return { found, output: () => text, kill };
}

export const newDirectory = () => fs.mkdtempSync(path.join(os.tmpdir(), 'windlass-e2e-'));

/** A control plane with its dashboard; `listen` are the addresses of one that ran before. */
export async function startControlPlane(data: string, options: string[] = [], listen = { api: '127.0.0.1:0', dashboard: '127.0.0.1:0' }) {
  const { found, ...rest } = await start(['server', '--data-dir', data, '--listen', listen.api, '--dashboard-listen', listen.dashboard, ...options], [/the API serves at https:\/\/(\S+)/, /the dashboard is at https:\/\/(\S+)/]);
  return { ...rest, listen: { api: found[0]!, dashboard: found[1]! }, url: `https://${found[1]}`, kubeconfig: path.join(data, 'kubeconfig') };
}

/** A cluster of one node, with the login link that it prints. */
export async function startCluster(data: string) {
  const { found, ...rest } = await start(['up', '--data-dir', data, '--listen', '127.0.0.1:0'], [/(http:\/\/127\.0\.0\.1:\d+\/login\?code=\S+)/]);
  return { ...rest, link: found[0]! };
}

interface Kubeconfig {
  clusters: { cluster: { server: string; 'certificate-authority-data': string } }[];
  users: { user: { 'client-certificate-data': string; 'client-key-data': string } }[];
}

function readKubeconfig(file: string) {
  const { clusters, users } = parse(fs.readFileSync(file, 'utf8')) as Kubeconfig;
  const bytes = (text: string) => Buffer.from(text, 'base64');
  const [{ cluster }, { user }] = [clusters[0]!, users[0]!];
  return { server: cluster.server, ca: bytes(cluster['certificate-authority-data']), cert: bytes(user['client-certificate-data']), key: bytes(user['client-key-data']) };
}

/** A request to the API as whoever a kubeconfig names. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function asAdmin(kubeconfig: string, method: string, at: string, body?: unknown): Promise<any> {
  const { server, ...credentials } = readKubeconfig(kubeconfig);
  return new Promise((resolve, reject) => {
    const request = https.request(`${server}${at}`, { method, ...credentials, headers: { 'content-type': 'application/json', accept: 'application/json' } }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (piece) => (text += piece)).on('end', () => {
        if (answer.statusCode! < 300 || answer.statusCode === 409) resolve(JSON.parse(text));
        else reject(new Error(`${method} ${at}: ${answer.statusCode} ${text}`));
      });
    });
    request.on('error', reject).end(body && JSON.stringify(body));
  });
}

/** A certificate of a user, as `windlass user create` makes it. */
export function createUser(kubeconfig: string, name: string, group: string): { cert: Buffer; key: Buffer } {
  const made = spawnSync(PROGRAM!, ['user', 'create', name, '--group', group, '--kubeconfig', kubeconfig], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(made.stderr);
  const own = path.join(path.dirname(kubeconfig), `${name}.kubeconfig`);
  fs.writeFileSync(own, made.stdout);
  const { cert, key } = readKubeconfig(own);
  return { cert, key };
}

/** A role of everything or of reading for a ServiceAccount in `default`, and a token of it. */
export async function tokenOf(kubeconfig: string, name: string, role: string): Promise<string> {
  const accounts = '/api/v1/namespaces/default/serviceaccounts';
  await asAdmin(kubeconfig, 'POST', accounts, { metadata: { name } });
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role };
  await asAdmin(kubeconfig, 'POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', { metadata: { name }, roleRef, subjects: [{ kind: 'ServiceAccount', name, namespace: 'default' }] });
  return (await asAdmin(kubeconfig, 'POST', `${accounts}/${name}/token`, { spec: { expirationSeconds: 3600 } })).status.token;
}
